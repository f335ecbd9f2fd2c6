"""Finite scalar quantisation: known ids, every code, gradients, and the paper's formula once more."""

import math

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

from vq_keras.bottlenecks.finite_scalar import FiniteScalarQuantizer
from vq_keras.errors import InputError


def bounded(latents, levels):
    """b of Mentzer et al. 2023, appendix A, in float64 and for one dimension after the other."""
    columns = []
    for column, number in zip(np.moveaxis(latents.astype("float64"), -1, 0), levels, strict=True):
        half, offset = (number - 1) / 2, 0 if number % 2 else 0.5
        columns.append(half * np.tanh(column + math.tan(offset / half)) - offset)
    return np.stack(columns, axis=-1)


def vectors_and_codes(latents, levels):
    rounded, codes, place = np.round(bounded(latents, levels)), 0, 1
    for dimension, number in enumerate(levels):
        codes = codes + place * (rounded[..., dimension] + number // 2)
        place *= number
    return rounded / [number // 2 for number in levels], codes.astype(int)


def away_from_edges(latents, levels):
    b = bounded(latents, levels)
    return (np.abs(b - np.floor(b) - 0.5) > 1e-4).all(-1)


def test_by_hand():
    layer = FiniteScalarQuantizer((3, 5, 4))
    outputs = call(layer, np.array([[0.25, 0.6, -7.0]], "float32"))
    np.testing.assert_array_equal(outputs["quantized"], [[0, 0.5, -1]])
    assert outputs["codes"] == [10]
    assert outputs["samples"] == [[10]]
    assert outputs["loss"] == 0


def test_limits():
    layer = FiniteScalarQuantizer((8, 5, 5, 5))
    ends = np.array([[1e30], [-1e30], [0.0]], "float32") * np.ones(4, "float32")
    assert call(layer, ends)["codes"].tolist() == [999, 0, 500]
    # An infinite latent is none: no code, and no number for an output.
    outputs = call(layer, np.full((3, 4), np.inf, "float32"))
    assert (outputs["codes"] == -1).all()
    assert np.isnan(outputs["quantized"]).all()


def test_every_level_is_within_reach_however_many_there_are():
    layer = FiniteScalarQuantizer((4001, 4000))
    assert call(layer, np.array([[30, 30], [-30, -30], [0, 0]], "float32"))["codes"].tolist() == [
        4001 * 4000 - 1,
        0,
        2000 + 4001 * 2000,
    ]


@pytest.mark.parametrize("levels", [(3, 5, 4), (2,), (2, 2, 3), (8, 6, 5)])
def test_codes_and_vectors_are_each_others_images(levels):
    layer = built(lambda: FiniteScalarQuantizer(levels), (None, len(levels)))
    ids = np.arange(math.prod(levels))
    vectors = array(layer.decode(ids))
    assert len(np.unique(vectors, axis=0)) == len(ids)
    assert np.abs(vectors).max() == 1
    digits = np.stack(np.unravel_index(ids, levels[::-1])[::-1], axis=-1)
    half_widths = np.array(levels) // 2
    np.testing.assert_allclose(vectors, (digits - half_widths) / half_widths, rtol=1e-7)
    # A latent for each of them: the bound's inverse, a little inside of its ends.
    halves, offsets = (np.array(levels) - 1) / 2, np.where(np.array(levels) % 2, 0, 0.5)
    inside = np.clip((digits - half_widths + offsets) / halves, -1 + 1e-6, 1 - 1e-6)
    latents = np.arctanh(inside) - np.tan(offsets / halves)
    np.testing.assert_array_equal(array(layer.encode(latents.astype("float32"))), ids)


def test_any_levels_and_any_mask():
    @given(st.lists(st.integers(2, 9), min_size=1, max_size=4), st.integers(0, 2**32 - 1), st.floats(0.01, 1e4))
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
    def check(levels, seed, scale):
        rng = np.random.default_rng(seed)
        latents, mask = (scale * rng.normal(size=(4, 5, len(levels)))).astype("float32"), rng.random((4, 5)) < 0.7
        layer = FiniteScalarQuantizer(levels)
        assert layer.num_codes == math.prod(levels)
        outputs = call(layer, np.where(mask[..., None], latents, np.nan).astype("float32"), mask=mask)
        assert ((outputs["codes"] >= 0) == mask).all()
        assert (outputs["codes"] < layer.num_codes).all()
        vectors, codes = vectors_and_codes(latents, levels)
        sure = mask & away_from_edges(latents, levels)
        np.testing.assert_array_equal(outputs["codes"][sure], codes[sure])
        np.testing.assert_allclose(outputs["quantized"][sure], vectors[sure], rtol=1e-6)
        assert (outputs["quantized"][~mask] == 0).all()

    check()


def test_the_gradient_is_that_of_the_bound(rng):
    levels = (8, 5, 2)
    latents, upstream = (rng.normal(size=(6, 3)).astype("float32") for _ in range(2))
    layer = built(lambda: FiniteScalarQuantizer(levels), latents.shape)
    step, exact = 1e-6, latents.astype("float64")
    slope = (bounded(exact + step, levels) - bounded(exact - step, levels)) / (2 * step)
    expected = upstream * slope / [4, 2, 1]
    np.testing.assert_allclose(compiled_gradients(layer, latents, upstream)[0], expected, rtol=1e-4, atol=1e-5)
    far = compiled_gradients(layer, np.full((1, 3), 1e30, "float32"), np.ones((1, 3), "float32"))[0]
    np.testing.assert_array_equal(far, 0)


def test_masked_latents(rng):
    mask = rng.random((3, 4)) < 0.6
    latents = rng.normal(size=(3, 4, 3)).astype("float32")
    assert_garbage_equals_absence(lambda: FiniteScalarQuantizer((5, 4, 3)), latents, mask)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision(policy, rng):
    """4,096 levels are more than a float16 between -1 and 1 or a bfloat16 id could tell apart."""
    latents = (3 * rng.normal(size=(50, 3))).astype("float32")
    make = lambda: FiniteScalarQuantizer((4096, 7, 64))  # noqa: E731
    assert_half_precision_rounds_only_what_goes_in_and_out(make, latents, policy)
    codes = array(built(make, latents.shape).encode(latents))
    assert ((codes >= 0) & (codes < 4096 * 7 * 64)).all()


def test_several_codebooks_are_as_many_bottlenecks(rng):
    latents = rng.normal(size=(2, 5, 2, 3)).astype("float32")
    together, one = FiniteScalarQuantizer((5, 4, 3), num_codebooks=2), FiniteScalarQuantizer((5, 4, 3))
    outputs = call(together, latents)
    alone = call(one, latents.reshape(20, 3))
    np.testing.assert_array_equal(outputs["codes"].ravel(), alone["codes"])
    np.testing.assert_array_equal(outputs["quantized"].reshape(20, 3), alone["quantized"])
    assert_decoding_is_evaluation(together, latents)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_decoding_the_codes_is_the_output_of_evaluation(policy, rng):
    keras.config.set_dtype_policy(policy)
    assert_decoding_is_evaluation(FiniteScalarQuantizer(num_codes=256), rng.normal(size=(2, 5, 3)).astype("float32"))


def test_a_saved_model_computes_the_same(tmp_path):
    assert_saved_model_computes_the_same(FiniteScalarQuantizer((5, 4, 3), name="fsq"), tmp_path, 3)


def test_recommended_levels():
    products = {256: 240, 1024: 1000, 4096: 4375, 16384: 15360, 65536: 64000}
    for asked, product in products.items():
        layer = FiniteScalarQuantizer(num_codes=asked)
        assert (layer.num_codes, layer.latent_dim) == (product, len(layer.levels))
        assert min(layer.levels) >= 5
        assert FiniteScalarQuantizer.from_config(layer.get_config()).levels == layer.levels


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "either levels or num_codes"),
        ({"levels": (5, 5), "num_codes": 256}, "either levels or num_codes"),
        ({"levels": ()}, r"levels are \(\)"),
        ({"levels": (5, 1)}, r"levels are \(5, 1\); give at least one whole number, each 2 or more"),
        ({"levels": (5, 2.5)}, r"levels are \(5, 2.5\)"),
        ({"levels": (8,) * 11}, "8589934592 codes are more than an int32 can count"),
        ({"num_codes": 512}, "for 512 codes, only for 256, 1024, 4096, 16384, 65536"),
        ({"levels": (5, 5), "num_codebooks": 0}, "num_codebooks is 0"),
    ],
)
def test_arguments_outside_their_range(arguments, message):
    with pytest.raises(InputError, match=message):
        FiniteScalarQuantizer(**arguments)


def test_latents_of_another_width():
    with pytest.raises(InputError, match=r"have 4 dimensions.*needs 2; wrap it as Projected\(FiniteScalarQuantizer"):
        FiniteScalarQuantizer((5, 5))(np.zeros((2, 4), "float32"))
