"""Which positions of sequences count."""

from keras import ops


def first(number, x):
    """True at the first `number` positions of each sequence: (batch,), (batch, n, dim) -> bool (batch, n).

    Example:
        >>> first(ops.array([2, 0]), ops.zeros((2, 3, 1)))  # [[True, True, False], [False, False, False]]
    """
    # Counted, because a functional model does not know the length of which a range would be made.
    places = ops.cumsum(ops.ones_like(x[..., 0], dtype="int32"), axis=1)
    return places <= ops.cast(number, "int32")[:, None]


def pooled(memory, mask):
    """The mean over the positions that `mask` (batch, n) has, (batch, n, dim) -> (batch, dim), without its gradient.

    For heads that read a memory and do not shape it: lengths are easy to learn beside translation.
    """
    weights = ops.cast(mask, memory.dtype)[..., None]
    return ops.sum(ops.stop_gradient(memory) * weights, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1.0)
