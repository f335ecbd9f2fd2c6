"""Source tokens at the places of a target: what a decoder of all tokens at once is given (Gu et al. 2018, section 3).

Functions of sentences `source` int32 (batch, n), padded with 0, that return int32 (batch, size): at each place of the
target the source token that is copied there, and 0 behind the target's end.
"""

from keras import ops


def uniform(source, source_lengths, lengths, size):
    """The source stretched, or pressed together, to other lengths; the first and the last token stay what they are.

    With n tokens in the source and m in the target, place t = 0 ... m - 1 holds token round(t (n - 1) / (m - 1)),
    halves rounded up. Gu et al. have round(t n / m) for t = 1 ... m, which loses the first token where m is small.

    Args:
        source: as above.
        source_lengths: int32 (batch,), n of each sentence.
        lengths: int32 (batch,), m of each sentence, at least 1.
        size: places of the longest, or more; an int or a scalar tensor.

    Example:
        >>> uniform(ops.array([[5, 6, 1, 0]]), ops.array([3]), ops.array([5]), size=6)  # [[5, 6, 6, 1, 1, 0]]
    """
    last = source_lengths[:, None] - 1
    steps = ops.maximum(lengths - 1, 1)[:, None]
    places = ops.arange(size, dtype="int32")[None]
    # In integers: rounding is the same on every backend.
    token = ops.clip((2 * places * last + steps) // (2 * steps), 0, ops.shape(source)[1] - 1)
    return ops.where(places < lengths[:, None], ops.take_along_axis(source, token, axis=1), 0)


def by_fertility(source, fertilities, size):
    """Each source token as many times as it is fertile, in order.

    Args:
        source: as above.
        fertilities: int32 (batch, n), 0 at padding.
        size: places; what is beyond is cut.

    Example:
        >>> by_fertility(ops.array([[5, 6, 1, 0]]), ops.array([[2, 0, 1, 0]]), size=4)  # [[5, 5, 1, 0]]
    """
    ends = ops.cumsum(fertilities, axis=1)
    places = ops.arange(size, dtype="int32")[None]
    # The token at a place is the first that ends behind it.
    token = ops.sum(ops.cast(ends[:, None, :] <= places[..., None], "int32"), axis=-1)
    token = ops.minimum(token, ops.shape(source)[1] - 1)
    return ops.where(places < ends[:, -1:], ops.take_along_axis(source, token, axis=1), 0)
