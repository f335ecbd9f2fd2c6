"""The length that a source's tokens add up to, against the formula in numpy."""

import keras
import numpy as np
import pytest
from compiled import compiled, numpy
from keras import ops

from vq_keras.models.summed_length import MIN_LOG_SCALE, SummedLength


@pytest.fixture
def head():
    keras.utils.set_random_seed(0)
    head = SummedLength()
    head.build((2, 5, 8))
    return head


def memory_and_mask():
    memory = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
    return memory, np.array([[True] * 5, [True] * 3 + [False] * 2])


def mean_of(head, memory, mask):
    kernel, bias = (numpy(weight).astype("float64") for weight in head.share.weights)
    shares = np.log1p(np.exp(memory @ kernel + bias))[..., 0]
    return (shares * mask).sum(axis=1)


def test_the_mean_is_the_sum_of_what_is_no_padding(head):
    memory, mask = memory_and_mask()
    np.testing.assert_allclose(numpy(compiled(head.mean)(memory, mask)), mean_of(head, memory, mask), rtol=1e-5)
    memory[1, 3:] = np.nan
    np.testing.assert_allclose(
        numpy(compiled(head.mean)(memory, mask)), mean_of(head, np.nan_to_num(memory), mask), rtol=1e-5
    )


@pytest.mark.parametrize("log_scale", [0.0, 0.7, -1.0, MIN_LOG_SCALE - 1])
def test_probabilities_are_the_logistic_mass_of_each_number(head, log_scale):
    memory, mask = memory_and_mask()
    head.log_scale.assign(log_scale)
    mean, scale = mean_of(head, memory, mask), np.exp(max(log_scale, MIN_LOG_SCALE))
    run = compiled(lambda number: head(memory, mask, ops.broadcast_to(number, (2,))))
    numbers = np.arange(-40, 60)
    found = np.stack([numpy(run(ops.convert_to_tensor(number, "int32"))) for number in numbers], axis=1)
    below, above = ((numbers + side - mean[:, None]) / scale for side in (-0.5, 0.5))
    # tanh keeps its precision on both sides: s(a) - s(b) = (tanh(a / 2) - tanh(b / 2)) / 2.
    expected = (np.tanh(above / 2) - np.tanh(below / 2)) / 2
    near = expected > 1e-9  # Below, the difference in float64 has lost its digits, which the layer has not.
    np.testing.assert_allclose(found[near], -np.log(expected[near]), rtol=1e-4, atol=1e-5)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.exp(-found).sum(axis=1), 1.0, rtol=1e-4)
