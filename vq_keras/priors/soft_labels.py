"""Cross entropy with the codes of a bottleneck as labels, one or several for each latent."""

import keras
from keras import ops


def cross_entropy(samples, logits):
    """-log p of each code in nats, the mean over the samples of its latent (roy2018 section 3.2).

    With m = 1 this is the exact negative log-likelihood. With more it is the cross entropy with the average of the m
    one-hot labels, at least the entropy of that average. Masked positions (negative ids) count nothing.

    Args:
        samples: (..., m) int32.
        logits: (..., num_codes).

    Returns:
        float32 (...).

    Example:
        >>> cross_entropy(ops.array([[0, 1], [-1, -1]]), ops.log([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]))
        # [1.5 ln 2, 0]
    """
    logits = ops.cast(logits, "float32")
    # Gathers of m logits: one-hot labels would be as large as the logits once more.
    drawn = ops.take_along_axis(logits, ops.maximum(samples, 0), axis=-1)
    nats = ops.logsumexp(logits, axis=-1, keepdims=True) - drawn
    return ops.mean(ops.where(samples >= 0, nats, 0.0), axis=-1)


@keras.saving.register_keras_serializable(package="vq_keras")
class CodeCrossEntropy(keras.layers.Layer):
    """-log p of each code in nats: samples (batch, n, m), logits (batch, n, num_codes) -> (batch, n), 0 at padding."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, samples, logits):
        return cross_entropy(samples, logits)

    def compute_output_spec(self, samples, logits):
        return keras.KerasTensor(samples.shape[:2], dtype="float32")
