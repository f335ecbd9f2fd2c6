"""How many tokens a target has: what those of its source add up to."""

import keras
from keras import ops

# A scale below lets a length that is one off cost ten nats and more, and the gradient grow without need.
MIN_LOG_SCALE = -3.0


@keras.saving.register_keras_serializable(package="vq_keras")
class SummedLength(keras.layers.Layer):
    """The number of tokens of a target as a discretised logistic distribution about a sum over its source.

        p(n) = s((n + 1/2 - mean) / scale) - s((n - 1/2 - mean) / scale),    mean = sum_i softplus(w . memory_i + b)

    with s the logistic function and one learned scale. Each token of the source adds its share of the target, as
    fertilities do (Gu et al. 2018), but without an alignment to learn them from. The mean of the memory, from which
    length classifiers tell the difference to the source's length, has this sum divided out.

    Shapes:
        memory (batch, n, dim); mask (batch, n), false at padding; num_tokens int32 (batch,). Output: -log p of those
        numbers in nats, float32 (batch,).

    Example:
        >>> head = SummedLength()
        >>> memory, mask = keras.random.normal((2, 7, 32)), ops.ones((2, 7), "bool")
        >>> head(memory, mask, ops.array([8, 9])).shape, head.mean(memory, mask).shape
        ((2,), (2,))
    """

    def __init__(self, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.supports_masking = True  # The mask is an argument.
        self.share = keras.layers.Dense(1, activation="softplus", dtype="float32", name="share")

    def build(self, memory_shape, *_):
        self.share.build(memory_shape)
        self.log_scale = self.add_weight(initializer="zeros", name="log_scale")

    def mean(self, memory, mask):
        """The expected number of tokens, float32 (batch,)."""
        return ops.sum(ops.where(mask, self.share(memory)[..., 0], 0.0), axis=1)

    def call(self, memory, mask, num_tokens):
        inverse = ops.exp(-ops.maximum(self.log_scale, MIN_LOG_SCALE))
        centred = ops.cast(num_tokens, "float32") - self.mean(memory, mask)
        # s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)), each factor of which keeps its precision far in a tail.
        above, below = inverse * (centred + 0.5), inverse * (centred - 0.5)
        return -ops.log_sigmoid(above) - ops.log_sigmoid(-below) - ops.log(-ops.expm1(-inverse))

    def compute_output_spec(self, memory, mask, num_tokens):
        return keras.KerasTensor((memory.shape[0],), dtype="float32")
