"""The convolutions of the PixelCNN against loops in numpy."""

import keras
import numpy as np
import pytest

from tests.compiled import compiled, numpy
from vq_keras.errors import InputError
from vq_keras.layers import HorizontalConvolution, VerticalConvolution

SHAPE = (2, 4, 5, 3)  # batch, rows, columns, dim


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def made(layer, *condition_shape):
    """The layer with weights that do not depend on the backend, biases among them."""
    layer.build(SHAPE, condition_shape or None)
    rng = np.random.default_rng(2)
    layer.set_weights([0.5 * rng.normal(size=weight.shape) for weight in layer.weights])
    return layer


def gate(features):
    a, b = features[..., :3], features[..., 3:]
    return np.tanh(a) / (1 + np.exp(-b))


def before_gate(layer, x, sees, condition):
    """[a, b] by loops; `sees(i, j)` has for each weight of the kernel the row and column that it falls on."""
    kernel = numpy(layer.convolution.kernel)
    features = np.zeros((*SHAPE[:3], 6))
    for i, j in np.ndindex(*SHAPE[1:3]):
        for place, (row, column) in sees(i, j).items():
            if 0 <= row < SHAPE[1] and 0 <= column < SHAPE[2]:
                features[:, i, j] += x[:, row, column] @ kernel[place]
    if condition is None:
        return features + numpy(layer.convolution.bias)
    return features + condition @ numpy(layer.project_condition.kernel) + numpy(layer.project_condition.bias)


@pytest.mark.parametrize("condition_shape", [(), (2, 1, 1, 4), (2, 4, 5, 4)])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_the_vertical_convolution_equals_a_loop(kernel_size, condition_shape):
    layer, x = made(VerticalConvolution(kernel_size), *condition_shape), normal(0, *SHAPE)
    condition = normal(1, *condition_shape) if condition_shape else None
    half = kernel_size // 2

    def sees(i, j):
        return {(a, b): (i - half + a, j - half + b) for a in range(half + 1) for b in range(kernel_size)}

    expected = before_gate(layer, x, sees, condition)
    gated, features = compiled(layer)(x, condition)
    # Sums of at most 45 float32 products of order one.
    np.testing.assert_allclose(numpy(features), expected, atol=1e-5)
    np.testing.assert_allclose(numpy(gated), gate(expected), atol=1e-5)


@pytest.mark.parametrize("condition_shape", [(), (2, 4, 5, 6)])
@pytest.mark.parametrize("kernel_size", [2, 3, 7])
def test_the_horizontal_convolution_equals_a_loop(kernel_size, condition_shape):
    layer, x = made(HorizontalConvolution(kernel_size), *condition_shape), normal(0, *SHAPE)
    condition = normal(1, *condition_shape) if condition_shape else None

    def sees(i, j):
        return {(0, b): (i, j - kernel_size + 1 + b) for b in range(kernel_size)}

    y = gate(before_gate(layer, x, sees, condition))
    expected = x + y @ numpy(layer.project_out.kernel) + numpy(layer.project_out.bias)
    # Sums of at most 21 float32 products of order one, and three more.
    np.testing.assert_allclose(numpy(compiled(layer)(x, condition)), expected, atol=1e-5)


@pytest.mark.parametrize("condition_shape", [(), (2, 1, 1, 4)])
def test_rows_of_the_vertical_convolution_equal_call(condition_shape):
    layer, x = made(VerticalConvolution(5), *condition_shape), normal(0, *SHAPE)
    condition = normal(1, *condition_shape) if condition_shape else None
    gated, features = compiled(layer)(x, condition)
    step, cache = compiled(layer.step), layer.init_cache(2, columns=5)
    for i in range(4):
        row, row_features, cache = step(x[:, i], cache, condition)
        np.testing.assert_allclose(numpy(row), numpy(gated)[:, i], atol=1e-6)
        np.testing.assert_allclose(numpy(row_features), numpy(features)[:, i], atol=5e-6)


@pytest.mark.parametrize("condition_shape", [(), (2, 4, 5, 6)])
def test_steps_of_the_horizontal_convolution_equal_call(condition_shape):
    layer, x = made(HorizontalConvolution(3), *condition_shape), normal(0, *SHAPE)
    condition = normal(1, *condition_shape) if condition_shape else None
    whole, step = numpy(compiled(layer)(x, condition)), compiled(layer.step)
    for i in (0, 2):
        cache = layer.init_cache(2)
        for j in range(5):
            y, cache = step(x[:, i, j], cache, None if condition is None else condition[:, i, j])
            np.testing.assert_allclose(numpy(y), whole[:, i, j], atol=5e-6)


def test_dropout_falls_on_the_residual_branch_in_training_only():
    layer, x = made(HorizontalConvolution(3, dropout=0.5)), normal(0, *SHAPE)
    np.testing.assert_array_equal(numpy(layer(x)), numpy(layer(x, training=False)))
    change, branch = numpy(layer(x, training=True)) - x, numpy(layer(x)) - x
    dropped = change == 0
    # Half of 120 units: five standard deviations of the binomial are 0.23.
    assert abs(dropped.mean() - 0.5) < 0.23
    np.testing.assert_allclose(change[~dropped], 2 * branch[~dropped], atol=1e-5)


@pytest.mark.parametrize("layer", [VerticalConvolution(5), HorizontalConvolution(4, dropout=0.2)])
def test_serialises(layer):
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()


def test_bfloat16_policy():
    x = normal(0, *SHAPE)
    for layer in (VerticalConvolution, HorizontalConvolution):
        low = made(layer(3, dtype="mixed_bfloat16"))
        y, exact = (keras.tree.flatten(each(x))[0] for each in (low, made(layer(3))))
        assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
        # Features of up to 8 rounded by 2**-8 of that, through a gate whose slope is at most one, and a matrix product.
        np.testing.assert_allclose(numpy(y), numpy(exact), atol=0.15)


@pytest.mark.parametrize(
    ("layer", "arguments", "sentence"),
    [
        (VerticalConvolution, {"kernel_size": 4}, "kernel_size is 4; give an odd number of at least 3."),
        (VerticalConvolution, {"kernel_size": 1}, "kernel_size is 1; give an odd number of at least 3."),
        (HorizontalConvolution, {"kernel_size": 1}, "kernel_size is 1; give at least 2."),
        (HorizontalConvolution, {"kernel_size": 2, "dropout": 1.0}, "dropout is 1.0; give a number from 0 up to, not"),
    ],
)
def test_bad_arguments(layer, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        layer(**arguments)
