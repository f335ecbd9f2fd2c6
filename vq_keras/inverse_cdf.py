"""Draws from many categorical distributions at once, by inverting their cumulative sums."""

import math

from keras import ops

# The largest target of a search, as a share of the total: at least one float32 step below it, so that every search
# ends at an id.
BELOW_ONE = 1.0 - 2.0**-23


def draw(logits, uniforms):
    """Draws ids with replacement from softmax(logits), one for each uniform number.

    Args:
        logits: float tensor (..., K), unnormalised log probabilities; -inf is probability zero.
        uniforms: float tensor (..., m) in [0, 1), with the leading axes of `logits`.

    Returns:
        int32 tensor (..., m). An id of probability zero is never drawn.

    Example:
        >>> draw(ops.log([[0.5, 0.25, 0.25]]), ops.convert_to_tensor([[0.0, 0.49, 0.51, 0.99]]))  # ids 0, 0, 1, 2
    """
    logits = ops.cast(logits, "float32")
    return draw_weighted(ops.exp(logits - ops.max(logits, axis=-1, keepdims=True)), uniforms)


def draw_weighted(weights, uniforms):
    """Draws ids with replacement in proportion to weights, one for each uniform number.

    The search has two levels, blocks of about sqrt(K) ids and then the ids inside one block, so that m draws cost
    K + 2 m sqrt(K) operations: the noise of Gumbel-max would cost m K, and a top-k of that noise would draw without
    replacement, which is another distribution. All randomness is in `uniforms`, so the same numbers give the same
    ids in any batch, chunk or backend up to rounding.

    Args:
        weights: float32 tensor (..., K), not negative, at least one of each K above zero.
        uniforms: float tensor (..., m) in [0, 1), with the leading axes of `weights`.

    Returns:
        int32 tensor (..., m). An id of weight zero is never drawn.
    """
    num_ids = weights.shape[-1]
    block = 2 ** math.ceil(math.log2(num_ids) / 2)  # A power of two: most codebooks then need no filling up.
    num_blocks = -(-num_ids // block)
    if num_blocks * block > num_ids:
        filler = [[0, 0]] * (len(weights.shape) - 1) + [[0, num_blocks * block - num_ids]]
        weights = ops.pad(weights, filler)
    blocks = ops.reshape(weights, (-1, block))
    totals = ops.reshape(ops.sum(blocks, axis=-1), (-1, 1, num_blocks))

    targets = ops.reshape(ops.cast(uniforms, "float32"), (-1, uniforms.shape[-1])) * ops.sum(totals, axis=-1)
    chosen, rest = _search(totals, targets)
    first_block = ops.arange(ops.shape(totals)[0], dtype="int32")[:, None] * num_blocks
    rows = ops.take(blocks, first_block + chosen, axis=0)
    rows = ops.reshape(rows, (*ops.shape(targets), block))  # JAX gives another shape for an empty batch.
    inside, _ = _search(rows, rest)
    return ops.reshape(chosen * block + inside, ops.shape(uniforms))


def _search(weights, targets):
    """The first id whose cumulative weight passes the target, and the target less the cumulative weight before it.

    Ids of weight zero get the end 0, which no target is below. They would not need it if cumulative sums never fell,
    but a parallel one (XLA) rounds differently for each id.
    """
    ends = ops.where(weights > 0, ops.cumsum(weights, axis=-1), 0.0)
    targets = ops.minimum(targets, ops.max(ends, axis=-1, initial=0.0) * BELOW_ONE)
    passed = ends <= targets[..., None]
    ids = ops.argmax(ops.cast(ops.logical_not(passed), "int32"), axis=-1)
    return ops.cast(ids, "int32"), targets - ops.max(ops.where(passed, ends, 0.0), axis=-1, initial=0.0)
