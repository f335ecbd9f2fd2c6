"""A block of a decoder-only Transformer."""

import keras

from vq_keras.errors import InputError
from vq_keras.layers.attention import LocalSelfAttention


@keras.saving.register_keras_serializable(package="vq_keras")
class TransformerBlock(keras.layers.Layer):
    """Pre-norm residual block: x + attention(norm(x)), then x + feed_forward(norm(x)).

    The attention is `LocalSelfAttention`, the feed-forward part Dense -> ReLU -> Dense. Dropout falls on the output
    of both parts before it is added, not on the attention weights: those are as many as all positions times twice
    the block length, and drawing random numbers for them would take longer than the attention itself on a CPU.

    Args:
        num_heads: number of attention heads; must divide the dimension of the input.
        feed_forward_dim: units of the hidden layer of the feed-forward part.
        block_length: block length of the local attention, in positions.
        dropout: share of the units that are dropped in training.

    Shapes:
        input and output (batch, n, dim).

    Raises:
        InputError: an argument is out of range, or the input dimension is no multiple of `num_heads`.

    Example:
        >>> block = TransformerBlock(num_heads=4, feed_forward_dim=256, block_length=64, dropout=0.1)
        >>> block(keras.random.normal((2, 640, 64))).shape
        (2, 640, 64)
    """

    def __init__(self, num_heads: int, feed_forward_dim: int, block_length: int, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        if feed_forward_dim < 1:
            raise InputError(f"feed_forward_dim is {feed_forward_dim}; give at least 1.")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout is {dropout}; give a number from 0 up to, not including, 1.")
        self.num_heads = num_heads
        self.feed_forward_dim = feed_forward_dim
        self.block_length = block_length
        self.dropout = dropout
        policy = self.dtype_policy
        self.attention = LocalSelfAttention(num_heads, block_length, dtype=policy, name="attention")
        self.attention_norm = keras.layers.LayerNormalization(epsilon=1e-6, dtype=policy, name="attention_norm")
        self.expand = keras.layers.Dense(feed_forward_dim, activation="relu", dtype=policy, name="expand")
        self.feed_forward_norm = keras.layers.LayerNormalization(epsilon=1e-6, dtype=policy, name="feed_forward_norm")
        self.residual_dropout = keras.layers.Dropout(dropout, dtype=policy, name="residual_dropout")

    def build(self, input_shape):
        dim = input_shape[-1]
        self.contract = keras.layers.Dense(dim, dtype=self.dtype_policy, name="contract")
        for layer in (self.attention_norm, self.attention, self.feed_forward_norm, self.expand):
            layer.build(input_shape)
        self.contract.build((*input_shape[:-1], self.feed_forward_dim))

    def call(self, x, training=None):
        attended = self.attention(self.attention_norm(x))
        x = x + self.residual_dropout(attended, training=training)
        return x + self.residual_dropout(self._feed_forward(x), training=training)

    def init_cache(self, batch_size, length: int | None = None) -> dict:
        """The empty cache of `step`; see `LocalSelfAttention.init_cache`."""
        return self.attention.init_cache(batch_size, length)

    def step(self, x, position, cache: dict) -> tuple:
        """The output (batch, dim) at one position, and the new cache; see `LocalSelfAttention.step`."""
        attended, cache = self.attention.step(self.attention_norm(x), position, cache)
        x = x + attended
        return x + self._feed_forward(x), cache

    def _feed_forward(self, x):
        return self.contract(self.expand(self.feed_forward_norm(x)))

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "feed_forward_dim": self.feed_forward_dim,
            "block_length": self.block_length,
            "dropout": self.dropout,
        }
