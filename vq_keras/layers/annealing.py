"""From what is easy to learn from to what there is in the end: mixtures that shift over a run."""

import keras
from keras import ops

from vq_keras.errors import InputError


@keras.saving.register_keras_serializable(package="vq_keras")
class Annealing(keras.layers.Layer):
    """Gives the one at first, more and more of the other, and that alone at last.

    Each position gets the other with the probability, at step t of s = `num_steps`,

        p = (0.01 + 0.99 min(1, t / s)) 0.01 ^ max(0, 1 - 4 t / s)

    In evaluation all do. It is what the code released with roy2018 does in 50,000 steps, from the embeddings of the
    target to what is decompressed of its codes, so that training begins with a teacher-forced decoder and ends with a
    parallel one. The paper does not mention it.

    Args:
        num_steps: s, training steps; 0 for the other alone from the start.

    Shapes:
        first and other (batch, n, dim); output the same.

    Raises:
        InputError: num_steps is negative.

    Example:
        >>> mix = Annealing(num_steps=1000)
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
        self.supports_masking = True

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
        """Whether all positions get the other by now: 0 or 1, float32."""
        return ops.cast(ops.convert_to_tensor(self.steps) >= self.num_steps, "float32")

    def call(self, first, other, training=None):
        if not training or self.num_steps == 0:
            return other
        drawn = keras.random.uniform(ops.shape(first)[:2], dtype="float32", seed=self.seed_generator) < self.share()
        if self.trainable:
            self.steps.assign(self.steps + 1)
        return ops.where(drawn[..., None], other, first)

    def get_config(self):
        return {**super().get_config(), "num_steps": self.num_steps, "seed": self.seed}
