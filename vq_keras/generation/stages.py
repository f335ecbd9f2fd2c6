"""A loop over positions whose cache grows on the way."""

from collections.abc import Callable

from keras import ops

# Of the greatest length: most sequences end long before it.
STAGES = (4, 2, 1)


def loop(condition: Callable, body: Callable, state: tuple, length, grow: Callable | None = None) -> tuple:
    """`ops.while_loop` over a state that begins with the position t and ends with the cache.

    A step reads and writes all of the cache, whether filled or not. Where it can grow, it gets a quarter of its
    greatest length first, then half of it, and the whole only where a sequence comes so far.

    Args:
        condition, body: as for `ops.while_loop`.
        state: (t, ..., cache).
        length: the greatest number of positions, an int or a scalar tensor.
        grow: function (cache, number of positions) -> cache for so many; None where the cache is whole from the start.

    Returns:
        The last state.
    """
    if grow is None:
        return ops.while_loop(condition, body, state)
    for part in STAGES:
        end = length // part
        state = (*state[:-1], grow(state[-1], end))
        state = ops.while_loop(lambda t, *rest, end=end: ops.logical_and(t < end, condition(t, *rest)), body, state)
    return state
