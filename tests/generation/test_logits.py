"""The quick search for the largest logits against a sort, and the normaliser against numpy."""

import numpy as np
import pytest
from chains import JAX, compiled
from keras import ops

from vq_keras.generation import logits as logits_of


def largest(logits, number):
    def run(logits):
        return logits_of.largest(logits, number)

    values, ids = (compiled(run) if JAX else run)(ops.convert_to_tensor(logits, "float32"))
    ids = ops.convert_to_numpy(ids)
    assert ids.dtype == "int32"
    return ops.convert_to_numpy(values), ids


# Below and above the size from which the search has two levels; with blocks that do and do not divide it.
@pytest.mark.parametrize("vocabulary, number", [(5, 5), (300, 8), (2048, 8), (1999, 8), (1030, 1), (2600, 20)])
def test_equals_a_sort(vocabulary, number):
    logits = np.random.default_rng(0).normal(size=(3, vocabulary)).astype("float32")
    logits[1] = np.round(logits[1])  # Many equal ones, of which the lowest ids count.
    logits[2, logits[2] < np.sort(logits[2])[-max(1, number // 2)]] = -np.inf
    expected = np.argsort(-logits, axis=-1, kind="stable")[:, :number]
    values, ids = largest(logits, number)
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(logits, expected, -1))


def test_the_two_levels_are_those_of_the_constant():
    assert 300 < 8 * logits_of.WORTH_TWO_LEVELS < 1999


def test_the_normaliser():
    logits = np.random.default_rng(0).normal(size=(4, 1000)) + np.array([[0], [1000], [-1000], [3]])
    logits[0, :500] = -np.inf
    best = logits.max(-1, keepdims=True)
    expected = best + np.log(np.exp(logits - best).sum(-1, keepdims=True))
    normalizer = logits_of.log_normalizer(*(ops.convert_to_tensor(x, "float32") for x in (logits, best)))
    # At 1,000 a float32 is exact to 6e-5.
    np.testing.assert_allclose(ops.convert_to_numpy(normalizer), expected, atol=1e-4)
