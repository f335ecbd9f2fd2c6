"""Compression by strided convolutions and back: receptive fields, padding, a hand-made convolution."""

import keras
import numpy as np
import pytest
from compiled import compiled, numpy

from vq_keras.errors import InputError
from vq_keras.layers import Compressor, Decompressor


def test_one_step_of_compression_equals_numpy():
    """Residual part and halving, with weights written down in numpy."""
    keras.utils.set_random_seed(0)
    layer = Compressor(num_steps=1)
    x = np.random.default_rng(0).normal(size=(1, 4, 3)).astype("float32")
    y = numpy(layer(x, np.array([2])))

    def norm(v):
        return (v - v.mean(-1, keepdims=True)) / np.sqrt(v.var(-1, keepdims=True) + 1e-6)

    def convolve(v, kernel, stride, pad):
        v = np.pad(np.maximum(v, 0), [[pad, pad], [0, 0]])
        width = len(kernel)
        return np.stack(
            [np.einsum("wi,wio->o", v[t : t + width], kernel) for t in range(0, len(v) - width + 1, stride)]
        )

    residual = norm(x[0])
    for unit in layer.residual[0].units:
        residual = norm(convolve(residual, numpy(unit.convolution.kernel), 1, 1))
    expected = norm(convolve(x[0] + residual, numpy(layer.halve[0].convolution.kernel), 2, 0))
    np.testing.assert_allclose(y[0], expected, atol=2e-5)  # Four norms of float32.


@pytest.mark.parametrize("num_steps", [1, 3])
@pytest.mark.parametrize("kind", [Compressor, Decompressor])
def test_a_padded_sequence_gives_what_it_gives_alone(kind, num_steps):
    keras.utils.set_random_seed(0)
    layer, rng = kind(num_steps), np.random.default_rng(0)
    per_latent = 2**num_steps
    inside, outside = (per_latent, 1) if kind is Compressor else (1, per_latent)
    x = rng.normal(size=(2, 3 * inside, 8)).astype("float32")
    layer.build((None, None, 8))  # Not inside of the graph.
    function = compiled(layer)
    both, alone = function(x, np.array([3, 2])), function(x[1:, : 2 * inside], np.array([2]))
    assert both.shape == (2, 3 * outside, 8)
    np.testing.assert_allclose(numpy(both)[1, : 2 * outside], numpy(alone)[0], atol=1e-5)
    assert not numpy(both)[1, 2 * outside :].any()
    # What stands in the padding changes nothing.
    garbage = x.copy()
    garbage[1, 2 * inside :] = 1e4
    np.testing.assert_array_equal(numpy(function(garbage, np.array([3, 2]))), numpy(both))


def test_what_does_not_fit():
    with pytest.raises(InputError, match="12 positions are no multiple of 8"):
        Compressor(3)(np.zeros((1, 12, 4), "float32"), np.array([1]))
    with pytest.raises(InputError, match="num_steps is 0"):
        Decompressor(0)
