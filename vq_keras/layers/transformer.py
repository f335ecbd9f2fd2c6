"""The blocks of Transformers: pre-norm residual branches, the last of them a feed-forward part."""

import keras

from vq_keras.errors import InputError
from vq_keras.layers.attention import LocalSelfAttention
from vq_keras.layers.multi_head_attention import CausalSelfAttention, CrossAttention, SelfAttention


class ResidualBlock(keras.layers.Layer):
    """What all blocks share: x + attention(norm(x)) for each attention, then x + feed_forward(norm(x)).

    The feed-forward part is Dense -> ReLU -> Dense. Dropout falls on the output of each branch before it is added, as
    in Vaswani et al. 2017, section 5.4. The code released with that paper, and roy2018 with it, also drops attention
    weights and units of the hidden layer. Both are left out: they are many times as many numbers, and drawing random
    ones for them takes longer than the layers themselves on a CPU.

    Args:
        num_heads: number of attention heads; must divide the dimension of the input.
        feed_forward_dim: units of the hidden layer of the feed-forward part.
        dropout: share of the units that are dropped in training.

    Raises:
        InputError: an argument is out of range, or the input dimension is no multiple of `num_heads`.
    """

    def __init__(self, num_heads: int, feed_forward_dim: int, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True  # Masks are arguments, as in `Stack`.
        if feed_forward_dim < 1:
            raise InputError(f"feed_forward_dim is {feed_forward_dim}; give at least 1.")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout is {dropout}; give a number from 0 up to, not including, 1.")
        self.num_heads = num_heads
        self.feed_forward_dim = feed_forward_dim
        self.dropout = dropout

    def _norm(self, name):
        return keras.layers.LayerNormalization(epsilon=1e-6, dtype=self.dtype_policy, name=name)

    def _make_feed_forward(self):
        policy = self.dtype_policy
        self.expand = keras.layers.Dense(self.feed_forward_dim, activation="relu", dtype=policy, name="expand")
        self.feed_forward_norm = self._norm("feed_forward_norm")
        self.residual_dropout = keras.layers.Dropout(self.dropout, dtype=policy, name="residual_dropout")

    def _build_feed_forward(self, input_shape):
        self.contract = keras.layers.Dense(input_shape[-1], dtype=self.dtype_policy, name="contract")
        self.feed_forward_norm.build(input_shape)
        self.expand.build(input_shape)
        self.contract.build((*input_shape[:-1], self.feed_forward_dim))

    def _add(self, x, branch, training=False):
        return x + self.residual_dropout(branch, training=training)

    def _feed_forward(self, x):
        return self.contract(self.expand(self.feed_forward_norm(x)))

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "feed_forward_dim": self.feed_forward_dim,
            "dropout": self.dropout,
        }


@keras.saving.register_keras_serializable(package="vq_keras")
class TransformerBlock(ResidualBlock):
    """A block of a decoder-only Transformer: `LocalSelfAttention`, then the feed-forward part of `ResidualBlock`.

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
        super().__init__(num_heads, feed_forward_dim, dropout, **kwargs)
        self.block_length = block_length
        self.attention = LocalSelfAttention(num_heads, block_length, dtype=self.dtype_policy, name="attention")
        self.attention_norm = self._norm("attention_norm")
        self._make_feed_forward()

    def build(self, input_shape):
        self._build_feed_forward(input_shape)
        self.attention_norm.build(input_shape)
        self.attention.build(input_shape)

    def call(self, x, training=None):
        x = self._add(x, self.attention(self.attention_norm(x)), training)
        return self._add(x, self._feed_forward(x), training)

    def init_cache(self, batch_size, length: int | None = None) -> dict:
        """The empty cache of `step`; see `LocalSelfAttention.init_cache`."""
        return self.attention.init_cache(batch_size, length)

    def step(self, x, position, cache: dict) -> tuple:
        """The output (batch, dim) at one position, and the new cache; see `LocalSelfAttention.step`."""
        attended, cache = self.attention.step(self.attention_norm(x), position, cache)
        x = x + attended
        return x + self._feed_forward(x), cache

    def get_config(self):
        return {**super().get_config(), "block_length": self.block_length}


@keras.saving.register_keras_serializable(package="vq_keras")
class EncoderBlock(ResidualBlock):
    """A block of an encoder: `SelfAttention`, then the feed-forward part. Arguments as for `ResidualBlock`.

    Shapes:
        input and output (batch, n, dim); key_mask (batch, n), false at padding, or None.

    Example:
        >>> block = EncoderBlock(num_heads=4, feed_forward_dim=64, dropout=0.1)
        >>> block(keras.random.normal((2, 7, 32))).shape
        (2, 7, 32)
    """

    def __init__(self, num_heads: int, feed_forward_dim: int, dropout: float = 0.0, **kwargs):
        super().__init__(num_heads, feed_forward_dim, dropout, **kwargs)
        self.attention = SelfAttention(num_heads, dtype=self.dtype_policy, name="attention")
        self.attention_norm = self._norm("attention_norm")
        self._make_feed_forward()

    def build(self, input_shape):
        self._build_feed_forward(input_shape)
        self.attention_norm.build(input_shape)
        self.attention.build(input_shape)

    def call(self, x, key_mask=None, training=None):
        x = self._add(x, self.attention(self.attention_norm(x), key_mask), training)
        return self._add(x, self._feed_forward(x), training)


class MemoryBlock(ResidualBlock):
    """What blocks with a memory share: attention to the sequence itself, `CrossAttention`, the feed-forward part."""

    self_attention = None  # The class of the first attention.

    def __init__(self, num_heads: int, feed_forward_dim: int, dropout: float = 0.0, **kwargs):
        super().__init__(num_heads, feed_forward_dim, dropout, **kwargs)
        self.attention = self.self_attention(num_heads, dtype=self.dtype_policy, name="attention")
        self.attention_norm = self._norm("attention_norm")
        self.cross_attention = CrossAttention(num_heads, dtype=self.dtype_policy, name="cross_attention")
        self.cross_attention_norm = self._norm("cross_attention_norm")
        self._make_feed_forward()

    def build(self, x_shape, memory_shape):
        self._build_feed_forward(x_shape)
        self.attention_norm.build(x_shape)
        self.attention.build(x_shape)
        self.cross_attention_norm.build(x_shape)
        self.cross_attention.build(x_shape, memory_shape)

    def _all_branches(self, x, attended, memory, key_mask, training):
        x = self._add(x, attended, training)
        x = self._add(x, self.cross_attention(self.cross_attention_norm(x), memory, key_mask), training)
        return self._add(x, self._feed_forward(x), training)


@keras.saving.register_keras_serializable(package="vq_keras")
class DecoderBlock(MemoryBlock):
    """A block of a decoder: `CausalSelfAttention`, `CrossAttention` to a memory, then the feed-forward part.

    Arguments as for `ResidualBlock`.

    Shapes:
        input and output (batch, n, dim); memory (batch, m, any dimension); key_mask (batch, m), false at padding,
        or None.

    Example:
        >>> block = DecoderBlock(num_heads=4, feed_forward_dim=64, dropout=0.1)
        >>> block(keras.random.normal((2, 10, 32)), keras.random.normal((2, 7, 32))).shape
        (2, 10, 32)
    """

    self_attention = CausalSelfAttention

    def call(self, x, memory, key_mask=None, training=None):
        return self._all_branches(x, self.attention(self.attention_norm(x)), memory, key_mask, training)

    def init_cache(self, batch_size, length: int) -> dict:
        """The empty cache of `step`; see `CausalSelfAttention.init_cache`."""
        return self.attention.init_cache(batch_size, length)

    def step(self, x, position, cache: dict, projected: dict, key_mask=None) -> tuple:
        """The output (rows, dim) at one position, and the new cache.

        See `CausalSelfAttention.step` for the cache and `CrossAttention.step` for rows and `projected`, which is what
        `cross_attention.project_memory` returned.
        """
        attended, cache = self.attention.step(self.attention_norm(x), position, cache)
        x = x + attended
        x = x + self.cross_attention.step(self.cross_attention_norm(x), projected, key_mask)
        return x + self._feed_forward(x), cache


@keras.saving.register_keras_serializable(package="vq_keras")
class ParallelDecoderBlock(MemoryBlock):
    """A block of a decoder of all positions at once: as `DecoderBlock`, but each position sees all the others.

    Arguments and shapes as for `DecoderBlock`; x_mask (batch, n), false where the sequence itself is padding, or None.

    Example:
        >>> block = ParallelDecoderBlock(num_heads=4, feed_forward_dim=64, dropout=0.1)
        >>> block(keras.random.normal((2, 10, 32)), keras.random.normal((2, 7, 32))).shape
        (2, 10, 32)
    """

    self_attention = SelfAttention

    def call(self, x, memory, key_mask=None, x_mask=None, training=None):
        return self._all_branches(x, self.attention(self.attention_norm(x), x_mask), memory, key_mask, training)
