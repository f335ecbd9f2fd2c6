"""Lookup-free quantisation: signs and ids by hand, entropies against sums over all codes."""

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
from numpy_codebook import probabilities
from scipy.special import xlogy

from vq_keras.bottlenecks import replicas
from vq_keras.bottlenecks.lookup_free import LookupFreeQuantizer
from vq_keras.errors import InputError


def table(bits, spherical=False):
    """All codes in the order of their ids: the first dimension has the most significant bit."""
    signs = 2.0 * (np.arange(2**bits)[:, None] >> np.arange(bits)[::-1] & 1) - 1
    return signs / math.sqrt(bits) if spherical else signs


def entropy(probability):
    return -xlogy(probability, probability).sum(-1)


def brute_force(latents, spherical, temperature):
    """E[H(p)], H(E[p]) and the mean squared error, by the probabilities of all codes for all latents (n, bits)."""
    latents = latents.astype("float64")
    if spherical:
        latents = latents / np.linalg.norm(latents, axis=-1, keepdims=True)
    codes = table(latents.shape[-1], spherical)
    p = probabilities(latents, codes, temperature)
    nearest = codes[p.argmax(-1)]
    return entropy(p).mean(), entropy(p.mean(0)), np.mean((latents - nearest) ** 2)


def loss_by_brute_force(latents, spherical, temperature, entropy_weight, diversity_weight, commitment_weight):
    of_each, of_mean, error = brute_force(latents, spherical, temperature)
    return entropy_weight * (of_each - diversity_weight * of_mean) + commitment_weight * error


def test_by_hand():
    outputs = call(
        LookupFreeQuantizer(8, commitment_weight=1.0, entropy_weight=0.0), np.array([[0.5, -2, 1]], "float32")
    )
    np.testing.assert_array_equal(outputs["quantized"], [[1, -1, 1]])
    assert outputs["codes"] == [5]
    assert outputs["loss"] == pytest.approx((0.25 + 1 + 0) / 3)
    # The sign of the first dimension alone is the highest bit.
    layer = LookupFreeQuantizer(8)
    assert call(layer, np.array([[1, -1, -1], [-1, -1, 1], [0, 0, 0]], "float32"))["codes"].tolist() == [4, 1, 0]


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("bits", [1, 5])
def test_codes_and_vectors_are_each_others_images(spherical, bits):
    layer = built(lambda: LookupFreeQuantizer(2**bits, spherical=spherical), (None, bits))
    vectors = array(layer.decode(np.arange(2**bits)))
    np.testing.assert_allclose(vectors, table(bits, spherical), rtol=1e-7)
    np.testing.assert_array_equal(array(layer.encode(vectors)), np.arange(2**bits))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1 if spherical else math.sqrt(bits), rtol=1e-6)


def test_any_shape_mask_and_weights():
    @given(
        st.integers(1, 7),
        st.booleans(),
        st.sampled_from([0.01, 0.3, 3.0]),
        st.sampled_from([0.0, 0.1, 2.0]),
        st.integers(0, 2**32 - 1),
    )
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
    def check(bits, spherical, temperature, weight, seed):
        rng = np.random.default_rng(seed)
        latents, mask = rng.normal(size=(4, 9, bits)).astype("float32"), rng.random((4, 9)) < 0.7
        mask[0, 0] = True
        arguments = {
            "spherical": spherical,
            "temperature": temperature,
            "entropy_weight": weight,
            "diversity_weight": 0.7,
            "commitment_weight": 0.3,
        }
        layer = LookupFreeQuantizer(2**bits, **arguments)
        outputs = call(layer, np.where(mask[..., None], latents, np.nan).astype("float32"), mask=mask)
        codes = ((latents > 0) * 2 ** np.arange(bits)[::-1]).sum(-1)
        np.testing.assert_array_equal(outputs["codes"], np.where(mask, codes, -1))
        vectors = np.where(mask[..., None], table(bits, spherical)[codes], 0)
        np.testing.assert_allclose(outputs["quantized"], vectors, rtol=1e-6)
        assert outputs["loss"] == pytest.approx(loss_by_brute_force(latents[mask], **arguments), rel=1e-4, abs=1e-5)

    check()


@pytest.mark.parametrize("spherical", [False, True])
def test_entropy_loss_in_the_limit(spherical):
    """Every code once, each latent sure of its own: no entropy of any one, and all that there can be of their mean."""
    arguments = {"entropy_weight": 1.0, "diversity_weight": 0.4, "temperature": 0.001, "commitment_weight": 0.0}
    layer = LookupFreeQuantizer(64, spherical=spherical, **arguments)
    assert call(layer, table(6).astype("float32"))["loss"] == pytest.approx(-0.4 * math.log(64), rel=1e-6)
    # Latents at the origin choose every code alike, or none.
    nowhere = call(layer, np.zeros((64, 6), "float32"))
    assert nowhere["loss"] == pytest.approx(0.6 * math.log(64), rel=1e-6)
    # All at one code, and so far that a square would be infinite where a probability is not.
    assert call(layer, np.full((64, 6), 1e15, "float32"))["loss"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("spherical", [False, True])
def test_gradients_of_the_losses(spherical, rng):
    """Against differences of the loss over all codes."""
    latents = rng.normal(size=(7, 3)).astype("float32")
    arguments = {
        "spherical": spherical,
        "temperature": 2.0,
        "entropy_weight": 0.5,
        "diversity_weight": 0.7,
        "commitment_weight": 0.3,
    }
    layer = built(lambda: LookupFreeQuantizer(8, **arguments), latents.shape)
    expected, step = np.zeros((7, 3)), 1e-5
    for index in np.ndindex(7, 3):
        move = np.zeros((7, 3))
        move[index] = step
        above, below = (loss_by_brute_force(latents + sign * move, **arguments) for sign in (1, -1))
        expected[index] = (above - below) / (2 * step)
    np.testing.assert_allclose(compiled_gradients(layer, latents)[0], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("spherical", [False, True])
def test_gradients_are_finite_everywhere(spherical):
    latents = np.array([[0, 0, 0], [1e15, -1e15, 1e15], [1e-30, 0, 0], [1, 1, -1]], "float32")
    layer = built(lambda: LookupFreeQuantizer(8, spherical=spherical, temperature=1e-3), latents.shape)
    assert np.isfinite(compiled_gradients(layer, latents)[0]).all()
    assert np.isfinite(compiled_gradients(layer, latents, np.ones_like(latents))[0]).all()


def test_the_gradient_of_the_output_goes_straight_through(rng):
    latents, upstream = (rng.normal(size=(6, 3)).astype("float32") for _ in range(2))
    layer = built(lambda: LookupFreeQuantizer(8), latents.shape)
    np.testing.assert_array_equal(compiled_gradients(layer, latents, upstream)[0], upstream)
    # On the sphere it goes through the normalisation: nothing along the latent itself, the rest divided by its length.
    layer = built(lambda: LookupFreeQuantizer(8, spherical=True), latents.shape)
    lengths = np.linalg.norm(latents, axis=-1, keepdims=True)
    along = (upstream * latents).sum(-1, keepdims=True) * latents / lengths**2
    np.testing.assert_allclose(
        compiled_gradients(layer, latents, upstream)[0], (upstream - along) / lengths, rtol=1e-4, atol=1e-6
    )


def test_the_mean_is_over_all_replicas(rng, monkeypatch):
    """A replica that is given the sums of another has the second entropy of both, and the first of its own latents."""
    latents = rng.normal(size=(8, 3)).astype("float32")
    p = probabilities(latents, table(3), 2.0)

    def with_another(*tensors):
        halves = p[4:].sum(0).reshape(1, 2, 4).astype("float32"), np.float32(4)
        return [mine + other for mine, other in zip(tensors, halves, strict=True)]

    monkeypatch.setattr(replicas, "all_reduce_sum", with_another)
    layer = LookupFreeQuantizer(8, temperature=2.0, entropy_weight=1.0, commitment_weight=0.0)
    expected = entropy(p[:4]).mean() - entropy(p.mean(0))
    assert call(layer, latents[:4])["loss"] == pytest.approx(expected, rel=1e-5)


def test_masked_latents(rng):
    latents, mask = rng.normal(size=(3, 4, 2, 4)).astype("float32"), rng.random((3, 4)) < 0.6
    make = lambda: LookupFreeQuantizer(16, num_codebooks=2, spherical=True)  # noqa: E731
    assert_garbage_equals_absence(make, latents, mask, books=1)


def test_a_batch_that_is_masked_entirely():
    outputs = call(LookupFreeQuantizer(8), np.full((2, 3), np.nan, "float32"), mask=np.zeros(2, bool))
    assert outputs["loss"] == 0
    assert (outputs["codes"] == -1).all()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision(policy, rng):
    """Ids up to 2^16 - 1 are more than either could count, and means of 2^16 probabilities less than a float16 has."""
    latents = rng.normal(size=(50, 16)).astype("float32")
    make = lambda: LookupFreeQuantizer(2**16, spherical=True)  # noqa: E731
    assert_half_precision_rounds_only_what_goes_in_and_out(make, latents, policy)


def test_several_codebooks_are_as_many_bottlenecks(rng):
    latents = rng.normal(size=(5, 2, 3)).astype("float32")
    together, one = LookupFreeQuantizer(8, num_codebooks=2), LookupFreeQuantizer(8)
    outputs = call(together, latents)
    each = [call(one, latents[:, book]) for book in range(2)]
    for name in ("codes", "samples", "quantized"):
        np.testing.assert_array_equal(outputs[name], np.stack([one[name] for one in each], axis=1))
    assert outputs["loss"] == pytest.approx(np.mean([one["loss"] for one in each]), rel=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_decoding_the_codes_is_the_output_of_evaluation(policy, rng):
    keras.config.set_dtype_policy(policy)
    latents = rng.normal(size=(2, 5, 4)).astype("float32")
    for spherical in (False, True):
        assert_decoding_is_evaluation(LookupFreeQuantizer(16, spherical=spherical), latents)


def test_a_saved_model_computes_the_same(tmp_path):
    bottleneck = LookupFreeQuantizer(16, spherical=True, temperature=0.3, entropy_weight=0.2, name="lfq")
    assert_saved_model_computes_the_same(bottleneck, tmp_path, 4)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_codes": 1}, "num_codes is 1; a LookupFreeQuantizer needs a power of two"),
        ({"num_codes": 12}, "num_codes is 12; a LookupFreeQuantizer needs a power of two"),
        ({"num_codes": -4}, "num_codes is -4"),
        ({"num_codes": 2**32}, "more than an int32 can count"),
        ({"entropy_weight": -1}, "entropy_weight is -1; give 0 or more"),
        ({"diversity_weight": -1}, "diversity_weight is -1"),
        ({"commitment_weight": float("nan")}, "commitment_weight is nan"),
        ({"temperature": 0}, "temperature is 0; give a number above 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
    ],
)
def test_arguments_outside_their_range(arguments, message):
    with pytest.raises(InputError, match=message):
        LookupFreeQuantizer(**{"num_codes": 8, **arguments})


def test_latents_of_another_width():
    with pytest.raises(InputError, match=r"have 4 dimensions.*needs 3; wrap it as Projected\(LookupFreeQuantizer"):
        LookupFreeQuantizer(8)(np.zeros((2, 4), "float32"))
