"""A decoder that learns from what it will be given."""

import keras
from keras import ops

from vq_keras.errors import InputError


@keras.saving.register_keras_serializable(package="vq_keras")
class ScheduledSampling(keras.layers.Layer):
    """Gives some sentences the vectors of their predicted codes in place of their own, from some step on.

    In translation a decoder reads codes that are predicted, and not always rightly; in training it would read only
    such as were read off the target. The remedy is that of Bengio et al. 2015, "Scheduled Sampling for Sequence
    Prediction with Recurrent Neural Networks", with two differences: whole sentences change, since the codes of one
    depend on each other, and the likeliest code is taken, as translation does, rather than one that is drawn. Each is
    predicted from the sentence's own codes before it, so that all are known at once. No gradient goes through them.

    Args:
        bottleneck: decodes the codes.
        share: the expected share of the sentences, 0 to 1.
        first_step: the training step, from 0, from which on; in evaluation none is changed.
        seed: of the choice.

    Shapes:
        vectors (batch, n, dim), logits (batch, n, num_codes); output like vectors.

    Raises:
        InputError: share or first_step is out of range.

    Example:
        >>> layer = ScheduledSampling(bottleneck, share=0.5, first_step=1000)
        >>> layer(vectors, logits, training=True)
    """

    def __init__(self, bottleneck, share: float, first_step: int = 0, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= share <= 1:
            raise InputError(f"the share of predicted codes is {share}; give 0 to 1.")
        if first_step < 0:
            raise InputError(f"the first step with predicted codes is {first_step}; give 0 or more.")
        self.bottleneck = bottleneck
        self.share = share
        self.first_step = first_step
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def build(self, *_):
        self.steps = self.add_weight(dtype="int", trainable=False, aggregation="only_first_replica", name="steps")

    def call(self, vectors, logits, training=None):
        if not training or self.share == 0:
            return vectors
        predicted = self.bottleneck.decode(ops.argmax(ops.stop_gradient(logits), axis=-1))
        drawn = keras.random.uniform((ops.shape(vectors)[0], 1, 1), dtype="float32", seed=self.seed_generator)
        begun = ops.convert_to_tensor(self.steps) >= self.first_step
        if self.trainable:
            self.steps.assign(self.steps + 1)
        return ops.where(ops.logical_and(drawn < self.share, begun), ops.cast(predicted, vectors.dtype), vectors)

    def compute_output_spec(self, vectors, logits, training=None):
        return keras.KerasTensor(vectors.shape, dtype=vectors.dtype)
