"""Stacks of Transformer blocks with the norm that pre-norm blocks need at their end."""

import keras

from vq_keras.errors import InputError
from vq_keras.layers.transformer import DecoderBlock, EncoderBlock, ParallelDecoderBlock


class Stack(keras.layers.Layer):
    """So many blocks of one kind, then a layer norm.

    Args:
        num_layers: number of blocks.
        num_heads: attention heads of each; must divide the dimension of the input.
        feed_forward_dim: units of the hidden layer of each feed-forward part.
        dropout: share of the units that are dropped in training.

    Raises:
        InputError: an argument is out of range.
    """

    block = None  # The class of the blocks.

    def __init__(self, num_layers: int, num_heads: int, feed_forward_dim: int, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True  # Masks are arguments here; Keras's own, of other layers, says nothing new.
        if num_layers < 1:
            raise InputError(f"num_layers of the {self.name} is {num_layers}; give at least 1.")
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.feed_forward_dim = feed_forward_dim
        self.dropout = dropout
        policy = self.dtype_policy
        self.blocks = [
            self.block(num_heads, feed_forward_dim, dropout, dtype=policy, name=f"block_{i}") for i in range(num_layers)
        ]
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6, dtype=policy, name="norm")

    def get_config(self):
        return {
            **super().get_config(),
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "feed_forward_dim": self.feed_forward_dim,
            "dropout": self.dropout,
        }


@keras.saving.register_keras_serializable(package="vq_keras")
class TransformerEncoder(Stack):
    """`EncoderBlock`s and a norm. Arguments as for `Stack`, shapes as for the block."""

    block = EncoderBlock

    def build(self, input_shape):
        for layer in (*self.blocks, self.norm):
            layer.build(input_shape)

    def call(self, x, key_mask=None, training=None):
        for block in self.blocks:
            x = block(x, key_mask=key_mask, training=training)
        return self.norm(x)


@keras.saving.register_keras_serializable(package="vq_keras")
class TransformerDecoder(Stack):
    """`DecoderBlock`s and a norm. Arguments as for `Stack`, shapes as for the block."""

    block = DecoderBlock

    def build(self, x_shape, memory_shape):
        for block in self.blocks:
            block.build(x_shape, memory_shape)
        self.norm.build(x_shape)

    def call(self, x, memory, key_mask=None, training=None):
        for block in self.blocks:
            x = block(x, memory, key_mask=key_mask, training=training)
        return self.norm(x)

    def project_memory(self, memory) -> list:
        """The keys and values of a memory (batch, m, dim) for each block; see `CrossAttention.project_memory`."""
        return [block.cross_attention.project_memory(memory) for block in self.blocks]

    def init_cache(self, batch_size, length: int) -> list:
        """The empty cache of `step`; see `CausalSelfAttention.init_cache`."""
        return [block.init_cache(batch_size, length) for block in self.blocks]

    def step(self, x, position, cache: list, projected: list, key_mask=None) -> tuple:
        """The output (rows, dim) at one position, and the new cache; see `DecoderBlock.step`.

        Args:
            x: (rows, dim), the input at this position.
            position: t, an int or an int32 scalar tensor; a sequence goes through 0, 1, 2, ... in order.
            cache: what `init_cache`, or the step before, returned.
            projected: what `project_memory` returned.
            key_mask: (batch, m), or None.
        """
        new_cache = []
        for block, block_cache, block_projected in zip(self.blocks, cache, projected, strict=True):
            x, block_cache = block.step(x, position, block_cache, block_projected, key_mask)
            new_cache.append(block_cache)
        return self.norm(x), new_cache


@keras.saving.register_keras_serializable(package="vq_keras")
class ParallelDecoder(Stack):
    """`ParallelDecoderBlock`s and a norm. Arguments as for `Stack`, shapes as for the block."""

    block = ParallelDecoderBlock

    def build(self, x_shape, memory_shape):
        for block in self.blocks:
            block.build(x_shape, memory_shape)
        self.norm.build(x_shape)

    def call(self, x, memory, key_mask=None, x_mask=None, training=None):
        for block in self.blocks:
            x = block(x, memory, key_mask=key_mask, x_mask=x_mask, training=training)
        return self.norm(x)
