"""A decoder that learns from what it will be given."""

import keras
from keras import ops

from vq_keras.errors import InputError


@keras.saving.register_keras_serializable(package="vq_keras")
class ScheduledSampling(keras.layers.Layer):
    """Gives some sentences the vectors of predicted codes in place of their own, from some step on.

    In translation a decoder reads codes that are predicted, and seldom those that the target has; in training it would
    read only such as were read off the target. The remedy is in the spirit of Bengio et al. 2015, "Scheduled Sampling
    for Sequence Prediction with Recurrent Neural Networks", with two differences: whole sentences change, since the
    codes of one depend on each other, and codes are predicted as translation predicts them, the likeliest each time,
    given those that were predicted before. No gradient goes through them.

    Args:
        code_search: the `CodeSearch` that predicts.
        share: the expected share of the sentences, 0 to 1.
        first_step: the training step, from 0, from which on; in evaluation none is changed.
        seed: of the choice.

    Shapes:
        vectors (batch, n, dim), memory (batch, m, dim) and its mask, num_latents (batch,); output like vectors.

    Raises:
        InputError: share or first_step is out of range.

    Example:
        >>> layer = ScheduledSampling(code_search, share=0.5, first_step=1000)
        >>> layer(vectors, memory, mask, num_latents, training=True)
    """

    def __init__(self, code_search, share: float, first_step: int = 0, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= share <= 1:
            raise InputError(f"the share of predicted codes is {share}; give 0 to 1.")
        if first_step < 0:
            raise InputError(f"the first step with predicted codes is {first_step}; give 0 or more.")
        self.code_search = code_search
        self.share = share
        self.first_step = first_step
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def build(self, *_):
        self.steps = self.add_weight(dtype="int", trainable=False, aggregation="only_first_replica", name="steps")

    def call(self, vectors, memory, mask, num_latents, training=None):
        if not training or self.share == 0:
            return vectors
        drawn = keras.random.uniform((ops.shape(vectors)[0], 1, 1), dtype="float32", seed=self.seed_generator)
        begun = ops.convert_to_tensor(self.steps) >= self.first_step
        if self.trainable:
            self.steps.assign(self.steps + 1)
        # None until then, so that the search takes no step.
        numbers = ops.where(begun, num_latents, 0)
        codes, _ = self.code_search(ops.stop_gradient(memory), mask, numbers, ops.shape(vectors)[1])
        predicted = self.code_search.bottleneck.decode(ops.stop_gradient(codes[:, 0]))
        predicted = ops.stop_gradient(ops.cast(predicted, vectors.dtype))
        return ops.where(ops.logical_and(drawn < self.share, begun), predicted, vectors)

    def compute_output_spec(self, vectors, memory, mask, num_latents, training=None):
        return keras.KerasTensor(vectors.shape, dtype=vectors.dtype)
