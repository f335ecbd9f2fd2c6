"""Causal local self-attention over a sequence, with a ring-buffer cache for generation."""

import keras
import numpy as np
from keras import ops

from vq_keras.errors import InputError
from vq_keras.layers.multi_head_attention import HIDDEN, CausalSelfAttention


@keras.saving.register_keras_serializable(package="vq_keras")
class LocalSelfAttention(CausalSelfAttention):
    """Causal 1-D local self-attention: each position sees its own block so far, and the block before.

    The sequence is cut into blocks of B = `block_length`. The query at position t attends to the keys at positions
    max(0, (t // B - 1) B) ... t: all of them in the first two blocks, between B + 1 and 2 B of them after those. A
    sequence of at most 2 B positions therefore gets full causal attention. Time and memory are O(n B) for n
    positions, and O(B) for one step of generation. The softmax is computed in float32 under every dtype policy.

    Source: local 1-D attention of Parmar et al. 2018, "Image Transformer", section 3.3.

    Args:
        num_heads: number of attention heads; must divide the dimension of the input.
        block_length: B, in positions.

    Shapes:
        input and output (batch, n, dim), where n is known when the layer is built and need not be a multiple of B.

    Raises:
        InputError: an argument is out of range, or the input dimension is no multiple of `num_heads`.

    Example:
        >>> attention = LocalSelfAttention(num_heads=4, block_length=64)
        >>> attention(keras.random.normal((2, 640, 32))).shape
        (2, 640, 32)
    """

    def __init__(self, num_heads: int, block_length: int, **kwargs):
        super().__init__(num_heads, **kwargs)
        if block_length < 1:
            raise InputError(f"block_length is {block_length}; give at least 1.")
        self.block_length = block_length

    def call(self, x):
        length = x.shape[1]
        block = length if length <= 2 * self.block_length else self.block_length
        num_blocks = -(-length // block)
        padding = num_blocks * block - length

        projected = self.project_in(x)
        if padding:
            projected = ops.pad(projected, [[0, 0], [0, padding], [0, 0]])
        # split, roll and concatenate have cheap gradients; that of a slice takes half of the step on a CPU.
        queries, keys, values = (
            ops.transpose(ops.reshape(y, (-1, num_blocks, block, self.num_heads, self.head_dim)), (0, 3, 1, 2, 4))
            for y in ops.split(projected, 3, axis=-1)
        )
        if num_blocks > 1:
            # The first block meets the last one here, which the mask hides.
            keys, values = (ops.concatenate([ops.roll(y, 1, axis=2), y], axis=3) for y in (keys, values))

        attended = self._attend(queries, keys, values, _block_mask(num_blocks, block))
        attended = ops.reshape(ops.transpose(attended, (0, 2, 3, 1, 4)), (-1, num_blocks * block, self.dim))
        if padding:
            attended, _ = ops.split(attended, [length], axis=1)
        return self.project_out(attended)

    def init_cache(self, batch_size, length: int | None = None) -> dict:
        """The empty cache of `step`: a ring of 2 B slots, of which position p takes slot p mod 2 B.

        Args:
            batch_size: number of sequences, an int or a scalar tensor.
            length: number of positions that will be generated, if known: a shorter sequence takes a smaller cache.

        Returns:
            {"keys", "values"}, each (batch, heads, slots, dim / heads).
        """
        slots = 2 * self.block_length
        return super().init_cache(batch_size, slots if length is None else min(slots, length))

    def _first_seen(self, position):
        return ops.maximum((position // self.block_length - 1) * self.block_length, 0)

    def get_config(self):
        return {**super().get_config(), "block_length": self.block_length}


def _block_mask(num_blocks, block):
    """What is added to the scores of each block: (blocks, block, keys), keys of the previous block first."""
    position = np.arange(num_blocks * block).reshape(num_blocks, block)
    keys = position
    if num_blocks > 1:
        keys = np.concatenate([position - block, position], axis=1)
    seen = (keys[:, None, :] <= position[:, :, None]) & (keys[:, None, :] >= 0)
    return np.where(seen, 0.0, HIDDEN).astype("float32")
