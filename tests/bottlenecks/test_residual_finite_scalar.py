"""Residual finite scalar quantisation: the stages as digits of one number, gradients, and dropped stages."""

import keras
import numpy as np
import pytest
from contract import (
    EXAMPLES,
    assert_decoding_is_evaluation,
    assert_garbage_equals_absence,
    assert_half_precision_rounds_only_what_goes_in_and_out,
    assert_saved_model_computes_the_same,
    built,
    compiled_gradients,
)
from harness import array, call
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from vq_keras.bottlenecks import Projected, ResidualFiniteScalarQuantizer, get
from vq_keras.errors import InputError


def bounded(latents, levels):
    widths = np.array(levels) / (np.array(levels) - 1)
    return widths * np.tanh(latents.astype("float64") / widths)


def one_fine_grid(latents, levels, num_stages):
    """Digits (..., stages, dim) and vectors of a grid of L^stages cells of equal width, and which latents are sure.

    Not stage by stage, as the layer computes them: the number of the cell is written in base L.
    """
    levels = np.array(levels)
    widths, cells = levels / (levels - 1), levels**num_stages
    position = (bounded(latents, levels) / widths + 1) / 2 * cells
    cell = np.clip(np.floor(position), 0, cells - 1).astype(int)
    digits = np.stack([cell // levels ** (num_stages - 1 - stage) % levels for stage in range(num_stages)], axis=-2)
    vectors = widths * (2 * (cell + 0.5) / cells - 1)
    # float32's rounding of the bound, in cells.
    margin = 1e-6 * cells
    return digits, vectors, (np.abs(position - np.round(position)) > margin).all(-1)


def joined(digits, levels):
    return digits @ np.cumprod([1, *levels[:-1]])


def test_by_hand():
    """Two digits to base 3: levels -1, 0, 1 and a third of them; the bound takes 1.5 tanh(x / 1.5)."""
    layer = ResidualFiniteScalarQuantizer((3,), num_stages=2)
    b = np.array([[0.0], [0.2], [0.9], [-1.4]])
    latents = (1.5 * np.arctanh(b / 1.5)).astype("float32")
    outputs = call(layer, latents)
    np.testing.assert_array_equal(outputs["codes"], [[1, 1], [1, 2], [2, 1], [0, 0]])
    np.testing.assert_allclose(outputs["quantized"], [[0], [1 / 3], [1], [-4 / 3]], rtol=1e-6)
    assert outputs["loss"] == 0
    assert outputs["samples"].shape == (4, 2, 1)


def test_any_levels_and_stages_are_the_digits_of_one_number():
    @given(
        st.lists(st.integers(2, 9), min_size=1, max_size=4),
        st.integers(1, 4),
        st.integers(0, 2**32 - 1),
        st.floats(0.01, 100),
    )
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
    def check(levels, num_stages, seed, scale):
        rng = np.random.default_rng(seed)
        latents, mask = (scale * rng.normal(size=(4, 5, len(levels)))).astype("float32"), rng.random((4, 5)) < 0.7
        layer = ResidualFiniteScalarQuantizer(levels, num_stages=num_stages)
        outputs = call(layer, np.where(mask[..., None], latents, np.nan).astype("float32"), mask=mask)
        assert ((outputs["codes"] >= 0) == mask[..., None]).all()
        assert (outputs["codes"] < layer.num_codes).all()
        digits, vectors, sure = one_fine_grid(latents, levels, num_stages)
        np.testing.assert_array_equal(outputs["codes"][sure & mask], joined(digits, levels)[sure & mask])
        np.testing.assert_allclose(outputs["quantized"][sure & mask], vectors[sure & mask], atol=1e-6)
        assert (outputs["quantized"][~mask] == 0).all()

    check()


def test_each_stage_brings_the_output_as_many_times_closer(rng):
    levels = (4, 3)
    latents = rng.normal(size=(2000, 2)).astype("float32")
    for num_stages in (1, 2, 3):
        outputs = call(ResidualFiniteScalarQuantizer(levels, num_stages=num_stages), latents)
        widest = np.abs(outputs["quantized"] - bounded(latents, levels)).max(0)
        # Half a cell, and next to nothing less of so many latents.
        half = 1 / (np.array(levels) - 1) / np.array(levels) ** (num_stages - 1.0)
        assert (widest <= half + 1e-6).all() and (widest > 0.9 * half).all()


def test_ends():
    layer = ResidualFiniteScalarQuantizer((8, 5), num_stages=3)
    ends = np.array([[1e30, 1e30], [-1e30, -1e30]], "float32")
    outputs = call(layer, ends)
    np.testing.assert_array_equal(outputs["codes"], [[39] * 3, [0] * 3])
    # An infinite latent is none: no code, and no number for an output; the other is not touched.
    outputs = call(layer, np.array([[np.inf, 0.0], [-1e30, -1e30]], "float32"))
    np.testing.assert_array_equal(outputs["codes"], [[-1] * 3, [0] * 3])
    assert np.isnan(outputs["quantized"][0]).all() and np.isfinite(outputs["quantized"][1]).all()
    assert array(layer.encode(np.array([[np.nan, 0.0]], "float32"))).tolist() == [[-1] * 3]


def test_the_gradient_passes_the_bound_once(rng):
    levels = (8, 5, 2)
    latents, upstream = (rng.normal(size=(6, 3)).astype("float32") for _ in range(2))
    layer = built(lambda: ResidualFiniteScalarQuantizer(levels, num_stages=3), latents.shape)
    step, exact = 1e-6, latents.astype("float64")
    slope = (bounded(exact + step, levels) - bounded(exact - step, levels)) / (2 * step)
    np.testing.assert_allclose(compiled_gradients(layer, latents, upstream)[0], upstream * slope, rtol=1e-4, atol=1e-5)
    assert not layer.trainable_variables


def test_dropped_stages_leave_the_coarser_output(rng):
    levels = (4, 3)
    layer = built(lambda: ResidualFiniteScalarQuantizer(levels, num_stages=3, dropout=0.9, seed=1), (None, 5, 2))
    latents = rng.normal(size=(40, 5, 2)).astype("float32")
    outputs = call(layer, latents, training=True)
    depths = (outputs["codes"] >= 0).sum(-1)
    assert set(depths.ravel()) == {1, 2, 3}
    for depth in (1, 2, 3):
        chosen = depths == depth
        _, vectors, sure = one_fine_grid(latents, levels, depth)
        np.testing.assert_allclose(outputs["quantized"][chosen & sure], vectors[chosen & sure], atol=1e-6)
        np.testing.assert_allclose(
            array(layer.decode(outputs["codes"]))[chosen], outputs["quantized"][chosen], atol=1e-6
        )


def test_masked_latents(rng):
    mask = rng.random((3, 4)) < 0.6
    latents = rng.normal(size=(3, 4, 3)).astype("float32")
    assert_garbage_equals_absence(lambda: ResidualFiniteScalarQuantizer((5, 4, 3)), latents, mask, books=1)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision(policy, rng):
    latents = (3 * rng.normal(size=(50, 3))).astype("float32")
    make = lambda: ResidualFiniteScalarQuantizer((16, 7, 16), num_stages=4)  # noqa: E731
    assert_half_precision_rounds_only_what_goes_in_and_out(make, latents, policy)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_decoding_the_codes_is_the_output_of_evaluation(policy, rng):
    keras.config.set_dtype_policy(policy)
    layer = ResidualFiniteScalarQuantizer(num_codes=256, num_stages=3)
    # A call rounds what it gets to the policy's dtype, `encode` does not; the finer stages would see it.
    latents = array(ops.cast(ops.cast(rng.normal(size=(2, 5, 3)), layer.compute_dtype), "float32"))
    assert_decoding_is_evaluation(layer, latents, rtol=1e-6)


def test_a_saved_model_computes_the_same(tmp_path):
    layer = ResidualFiniteScalarQuantizer((5, 4, 3), num_stages=3, dropout=0.5, seed=1, name="residual_fsq")
    assert_saved_model_computes_the_same(layer, tmp_path, 3)


def test_behind_learned_maps(rng):
    layer = Projected(get("residual_finite_scalar", num_codes=256, num_stages=3))
    outputs = call(layer, rng.normal(size=(2, 5, 9)).astype("float32"))
    assert (outputs["codes"].shape, outputs["quantized"].shape) == ((2, 5, 3), (2, 5, 9))
    assert layer.code_shape((5,)) == (5, 3)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "give a ResidualFiniteScalarQuantizer either levels or num_codes"),
        ({"levels": (5, 1)}, r"levels are \(5, 1\)"),
        ({"num_codes": 512}, "no recommended levels for 512 codes"),
        ({"levels": (5,), "num_stages": 0}, "num_stages is 0"),
        ({"levels": (8, 3), "num_stages": 8}, "8 stages of 8 levels are more than the 4194304"),
        ({"levels": (5,), "dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_arguments_outside_their_range(arguments, message):
    with pytest.raises(InputError, match=message):
        ResidualFiniteScalarQuantizer(**arguments)


def test_latents_of_another_width():
    with pytest.raises(InputError, match=r"have 4 dim.*needs 2; wrap it as Projected\(ResidualFiniteScalarQuantizer"):
        ResidualFiniteScalarQuantizer((5, 5))(np.zeros((2, 4), "float32"))
