"""Sinusoids against their formula."""

import keras
import numpy as np
import pytest
from compiled import compiled, numpy

from vq_keras.errors import InputError
from vq_keras.layers import SinusoidalPositions


def expected(positions, dim):
    frequencies = 1e4 ** -np.linspace(0.0, 1.0, dim // 2)
    angles = np.asarray(positions)[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)


@pytest.mark.parametrize("length, dim", [(1, 4), (50, 16), (3000, 64)])
def test_adds_the_sinusoids(length, dim):
    layer = SinusoidalPositions()
    y = numpy(compiled(layer)(np.full((2, length, dim), 0.5, "float32")))
    # An angle of 3,000 in float32 is known to 3000 * 2**-24 = 2e-4.
    np.testing.assert_allclose(
        y, np.broadcast_to(0.5 + expected(range(length), dim), y.shape), atol=1e-6 + length * 1e-7
    )


def test_a_step_is_one_position():
    layer = SinusoidalPositions()
    x = np.zeros((3, 20, 8), "float32")
    whole, step = numpy(compiled(layer)(x)), compiled(layer.step)
    for t in (0, 1, 19):
        np.testing.assert_allclose(numpy(step(x[:, t], np.int32(t))), whole[:, t], atol=1e-6)


def test_low_precision_tells_late_positions_apart():
    layer = SinusoidalPositions(dtype="mixed_bfloat16")
    y = layer(np.zeros((1, 1000, 16), "float32"))
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    # Half a unit in the last of 8 bits; bfloat16 positions themselves would go in steps of four from 512 on.
    np.testing.assert_allclose(numpy(y)[0], expected(range(1000), 16), atol=2**-8)


def test_odd_dimensions_are_refused():
    with pytest.raises(InputError, match="even dimension"):
        SinusoidalPositions().build((None, None, 7))
