"""Quantisation by a random projection: frozen parts, nearest codes by hand, and the learned map back."""

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
from harness import array, assert_same_state, call, state
from hypothesis import given, settings
from hypothesis.extra import numpy as npst
from numpy_codebook import nearest

from vq_keras.bottlenecks.random_projection import RandomProjectionQuantizer
from vq_keras.errors import InputError


def quantizer(**arguments):
    return RandomProjectionQuantizer(**{"num_codes": 12, "codebook_dim": 4, "seed": 5, **arguments})


def by_hand(layer, latents, book=0):
    """Codes of latents (n, dim) and their vectors, in float64."""
    projection, codebook, back = (
        array(weight)[book].astype("float64") for weight in (layer.projection, layer.codebook, layer.outward)
    )
    projected = latents.astype("float64") @ projection
    codes = nearest(projected / np.linalg.norm(projected, axis=-1, keepdims=True), codebook)
    return codes, codebook[codes] @ back


def test_any_mask(rng):
    layer = built(lambda: quantizer(commitment_weight=0.3, codebook_weight=0.8), (None, 5))

    @given(npst.arrays(bool, (3, 6)))
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
    def check(mask):
        latents = rng.normal(size=(3, 6, 5)).astype("float32")
        codes, vectors = by_hand(layer, latents[mask]) if mask.any() else (np.zeros(0), np.zeros((0, 5)))
        outputs = call(layer, np.where(mask[..., None], latents, np.nan).astype("float32"), mask=mask)
        np.testing.assert_array_equal(outputs["codes"][mask], codes)
        assert (outputs["codes"][~mask] == -1).all()
        np.testing.assert_allclose(outputs["quantized"][mask], vectors, rtol=1e-5, atol=1e-6)
        assert (outputs["quantized"][~mask] == 0).all()
        error = np.mean((latents[mask] - vectors) ** 2) if mask.any() else 0
        assert outputs["loss"] == pytest.approx((0.3 + 0.8) * error, rel=1e-5)

    check()


def test_projection_and_codes_are_random_and_frozen():
    layer, twin, other = (
        built(lambda seed=seed: RandomProjectionQuantizer(500, codebook_dim=8, seed=seed), (None, 64))
        for seed in (1, 1, 2)
    )
    assert_same_state(state(layer), state(twin))
    assert np.abs(array(layer.projection) - array(other.projection)).min() > 0
    assert [variable.name for variable in layer.trainable_variables] == ["outward"]
    codes, projection = array(layer.codebook)[0], array(layer.projection)[0]
    np.testing.assert_allclose(np.linalg.norm(codes, axis=-1), 1, rtol=1e-6)
    # In all directions alike: the mean of 500 unit vectors in 8 dimensions has elements of deviation 1/sqrt(500 x 8).
    assert np.abs(codes.mean(0)).max() < 5 / np.sqrt(500 * 8)
    bound = np.sqrt(6 / (64 + 8))
    assert 0.95 * bound < np.abs(projection).max() <= bound
    assert abs(projection.std() / (bound / np.sqrt(3)) - 1) < 0.1


def test_gradients(rng):
    latents, upstream = (rng.normal(size=(7, 5)).astype("float32") for _ in range(2))
    layer = built(lambda: quantizer(commitment_weight=0.3, codebook_weight=0.8), latents.shape)
    codes, vectors = by_hand(layer, latents)
    straight, (unmoved,) = compiled_gradients(layer, latents, upstream)
    np.testing.assert_array_equal(straight, upstream)
    assert unmoved is None or not unmoved.any()
    for_latents, (for_map,) = compiled_gradients(layer, latents)
    np.testing.assert_allclose(for_latents, 0.3 * 2 * (latents - vectors) / latents.size, rtol=1e-4, atol=1e-6)
    expected = array(layer.codebook)[0][codes].T @ (0.8 * 2 * (vectors - latents) / latents.size)
    np.testing.assert_allclose(for_map[0], expected, rtol=1e-4, atol=1e-6)


def test_codes_do_not_depend_on_the_length_of_a_latent(rng):
    latents = rng.normal(size=(20, 5)).astype("float32")
    layer = built(quantizer, latents.shape)
    codes = array(layer.encode(latents))
    for scale in (1e-6, 1e6):
        np.testing.assert_array_equal(array(layer.encode(np.float32(scale) * latents)), codes)


def test_several_codebooks_have_projections_of_their_own(rng):
    latents = rng.normal(size=(9, 2, 5)).astype("float32")
    layer = built(lambda: quantizer(num_codebooks=2), latents.shape)
    outputs = call(layer, latents)
    for book in range(2):
        codes, vectors = by_hand(layer, latents[:, book], book)
        np.testing.assert_array_equal(outputs["codes"][:, book], codes)
        np.testing.assert_allclose(outputs["quantized"][:, book], vectors, rtol=1e-5, atol=1e-6)
    projection = array(layer.projection)
    assert (projection[0] != projection[1]).all()
    assert_decoding_is_evaluation(layer, latents, rtol=1e-6)


def test_masked_latents(rng):
    latents, mask = rng.normal(size=(3, 6, 5)).astype("float32"), rng.random((3, 6)) < 0.6
    assert_garbage_equals_absence(quantizer, latents, mask)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision(policy, rng):
    latents = rng.normal(size=(40, 5)).astype("float32")
    assert_half_precision_rounds_only_what_goes_in_and_out(quantizer, latents, policy)
    keras.config.set_dtype_policy(policy)
    assert_decoding_is_evaluation(built(quantizer, latents.shape), latents, rtol=2**-7)


def test_a_saved_model_computes_the_same(tmp_path):
    assert_saved_model_computes_the_same(quantizer(seed=None, name="random"), tmp_path, 5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_codes": 1}, "num_codes is 1"),
        ({"codebook_dim": 0}, "codebook_dim is 0; give 1 or more"),
        ({"commitment_weight": -1}, "commitment_weight is -1; give 0 or more"),
        ({"codebook_weight": float("nan")}, "codebook_weight is nan"),
    ],
)
def test_arguments_outside_their_range(arguments, message):
    with pytest.raises(InputError, match=message):
        quantizer(**arguments)
