"""From the target itself to its latents: what a parallel decoder is given while it learns."""

import keras
from keras import ops

from vq_keras.errors import InputError


@keras.saving.register_keras_serializable(package="vq_keras")
class GoldAnnealing(keras.layers.Layer):
    """Gives a decoder the target's own embeddings at first, more and more of its latents' vectors, those alone at last.

    Each position gets the latents' vector with the probability, at step t of s = `num_steps`,

        p = (0.01 + 0.99 min(1, t / s)) 0.01 ^ max(0, 1 - 4 t / s)

    and the target's else: training begins with a teacher-forced decoder and ends with a parallel one. It is what the
    code released with roy2018 does in 50,000 steps, and the paper does not mention. In evaluation all come from the
    latents.

    Args:
        num_steps: s, training steps; 0 for latents alone from the start.

    Shapes:
        gold and decompressed (batch, n, dim); output the same.

    Raises:
        InputError: num_steps is negative.

    Example:
        >>> mix = GoldAnnealing(num_steps=1000)
        >>> mix(ops.zeros((2, 8, 4)), ops.ones((2, 8, 4)), training=True).shape
        (2, 8, 4)
    """

    def __init__(self, num_steps: int, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        if num_steps < 0:
            raise InputError(f"num_steps is {num_steps}; give 0 or more.")
        self.num_steps = num_steps
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, *_):
        self.steps = self.add_weight(dtype="int", trainable=False, aggregation="only_first_replica", name="steps")

    def share(self):
        """p, as of the training steps so far."""
        if self.num_steps == 0:
            return ops.ones(())
        progress = ops.cast(self.steps, "float32") / self.num_steps
        linear = 0.01 + 0.99 * ops.minimum(progress, 1.0)
        return linear * ops.power(0.01, ops.maximum(1.0 - 4.0 * progress, 0.0))

    def done(self):
        """Whether the decoder gets latents alone: 0 or 1, float32."""
        return ops.cast(ops.convert_to_tensor(self.steps) >= self.num_steps, "float32")

    def call(self, gold, decompressed, training=None):
        if not training or self.num_steps == 0:
            return decompressed
        drawn = keras.random.uniform(ops.shape(gold)[:2], dtype="float32", seed=self.seed_generator) < self.share()
        if self.trainable:
            self.steps.assign(self.steps + 1)
        return ops.where(drawn[..., None], decompressed, gold)

    def get_config(self):
        return {**super().get_config(), "num_steps": self.num_steps, "seed": self.seed}
