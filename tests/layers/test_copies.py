"""Copies of source tokens, against numpy and against Fractions."""

import math
from fractions import Fraction

import hypothesis
import hypothesis.strategies as st
import numpy as np
from compiled import compiled

from vq_keras.layers import copies

SIZE = 14


def padded(rows, width):
    return np.array([[*row, *[0] * (width - len(row))] for row in rows], "int32")


def test_uniform_copies_round_in_fractions():
    """Every pair of lengths from 1 to 9 and 1 to 12, in one batch."""
    shapes = [(n, m) for n in range(1, 10) for m in range(1, 13)]
    rows = [list(range(3, 3 + n)) for n, _ in shapes]
    lengths, targets = (np.array(each, "int32") for each in zip(*shapes, strict=True))
    run = compiled(lambda source, n, m: copies.uniform(source, n, m, SIZE))
    found = np.asarray(run(padded(rows, 10), lengths, targets))
    for row, copied, (n, m) in zip(rows, found, shapes, strict=True):
        exact = [Fraction(t * (n - 1), max(m - 1, 1)) for t in range(m)]
        expected = [row[math.floor(each + Fraction(1, 2))] for each in exact]
        np.testing.assert_array_equal(copied, [*expected, *[0] * (SIZE - m)])
        if m > 1:
            assert (copied[0], copied[m - 1]) == (row[0], row[-1])


run_by_fertility = compiled(lambda source, fertilities: copies.by_fertility(source, fertilities, SIZE))


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=6), min_size=3, max_size=3))
def test_copies_by_fertility_repeat_each_token(fertilities):
    rows = [list(range(3, 3 + len(row))) for row in fertilities]
    found = np.asarray(run_by_fertility(padded(rows, 7), padded(fertilities, 7)))
    for row, number, copied in zip(rows, fertilities, found, strict=True):
        expected = np.repeat(row, number)[:SIZE]
        np.testing.assert_array_equal(copied, [*expected, *[0] * (SIZE - len(expected))])
