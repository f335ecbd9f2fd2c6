"""A cache that grows on the way against one that is whole from the start."""

import numpy as np
import pytest
from compiled import compiled, numpy
from keras import ops

from vq_keras import generation
from vq_keras.generation.stages import loop

NUM_CODES, END = 7, 1


def step_over(table):
    """Logits that depend on all codes so far, which the cache (rows, slots) holds, each times a weight of its own."""

    def step(previous, t, cache):
        slots = ops.arange(ops.shape(cache)[1], dtype="int32")
        cache = ops.where(ops.equal(slots, t), ops.cast(previous, "float32")[:, None], cache)
        seen = ops.sum(cache * ops.cast(slots % 5 + 1, "float32"), axis=1)
        return ops.take(table, ops.cast(seen, "int32") % table.shape[0], axis=0), cache

    return step


def grow(cache, length):
    rows, slots = ops.shape(cache)
    return ops.concatenate([cache, ops.zeros((rows, length - slots))], axis=1)


def searches(table, length, rows, grow):
    step, start = step_over(table), ops.arange(rows, dtype="int32") + 2
    bounds = {"end": END, "grow": grow}
    slots = length if grow is None else 0
    beams = generation.beam_search(step, ops.zeros((3 * rows, slots)), length, start, 3, length_penalty=0.6, **bounds)
    return generation.greedy(step, ops.zeros((rows, slots)), length, start, **bounds), beams


# Lengths whose quarters and halves are no whole numbers, or nothing.
@pytest.mark.parametrize("length", [1, 3, 4, 13, 30])
def test_searches_find_the_same_with_a_cache_that_grows(length):
    table = ops.convert_to_tensor(np.random.default_rng(length).normal(size=(97, NUM_CODES)).astype("float32"))
    whole = compiled(lambda: searches(table, length, 4, None))()
    grown = compiled(lambda: searches(table, length, 4, grow))()
    for one, other in zip(whole, grown, strict=True):
        np.testing.assert_array_equal(numpy(one[0]), numpy(other[0]))
        np.testing.assert_allclose(numpy(one[1]), numpy(other[1]), rtol=1e-6)


@pytest.mark.parametrize(("last", "slots"), [(2, 3), (3, 6), (5, 6), (6, 12), (12, 12)])
def test_the_cache_is_as_large_as_the_stage_asks_for(last, slots):
    """Each step adds up how many slots it has: with a length of 12 the stages have 3, 6 and 12."""

    def body(t, total, cache):
        return t + 1, total + ops.shape(cache)[1], cache

    state = (ops.zeros((), "int32"), ops.zeros((), "int32"), ops.zeros((1, 0)))
    end, total, _ = loop(lambda t, *_: t <= last, body, state, 12, grow)
    sizes = [3 if t < 3 else 6 if t < 6 else 12 for t in range(min(last + 1, 12))]
    assert int(end) == len(sizes) and int(total) == sum(sizes) and sizes[-1] == slots
