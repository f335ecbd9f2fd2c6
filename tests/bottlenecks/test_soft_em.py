"""Soft EM: the distribution of its samples, its limits, and what does not depend on the number of samples."""

import numpy as np
import pytest
from harness import BACKEND, array, assert_same_state, call, embeddings_of, make, state
from numpy_codebook import probabilities

from vq_keras.bottlenecks import SoftEM, VectorQuantizer

CODES = [[-1.0], [1.0], [2.0]]


@pytest.mark.parametrize("num_samples", [1, 10])
def test_mean_and_variance_of_the_output(num_samples):
    """A latent at 0: p = (.487856, .487856, .024289), mean .048578, variance of one draw 1.070507."""
    number = 200_000 // num_samples
    layer = make(CODES, kind=SoftEM, num_samples=num_samples)
    samples = array(layer.sample(np.zeros((number, 1), "float32")))
    frequencies = np.bincount(samples.ravel(), minlength=3) / samples.size
    expected = np.array([0.487856, 0.487856, 0.024289])
    # 200,000 draws: standard errors of 0.0011, 0.0011 and 0.0003.
    np.testing.assert_allclose(frequencies, expected, atol=4 * np.sqrt(expected * (1 - expected) / samples.size).max())
    quantized = array(layer.decode_samples(samples))[:, 0]
    variance = 1.070507 / num_samples
    assert quantized.mean() == pytest.approx(0.048578, abs=4 * np.sqrt(variance / number))
    # The standard error of a variance is at most about sqrt(2 / number) of it for values this far from heavy tails.
    assert quantized.var() == pytest.approx(variance, rel=4 * np.sqrt(2 / number))


def test_the_m_step_approaches_the_responsibilities():
    """x = 0 and 1.5: means (.003796, .758756, 1.430427) as the number of draws grows."""
    latents = np.repeat([[0.0], [1.5]], 20_000, axis=0).astype("float32")
    layer = make(CODES, kind=SoftEM, num_samples=10, decay=0.0)
    call(layer, latents, training=True)
    # 400,000 draws; a code with n of them has a standard error of at most 0.75 / sqrt(n): 0.0017 for the third.
    np.testing.assert_allclose(embeddings_of(layer)[0, :, 0], [0.003796, 0.758756, 1.430427], atol=0.007)
    responsibilities = probabilities(np.array([[0.0], [1.5]]), CODES)
    np.testing.assert_allclose(responsibilities[1], [0.001238, 0.499381, 0.499381], atol=1e-6)
    np.testing.assert_allclose(array(layer.codebook.counts)[0], 20_000 * responsibilities.sum(0), rtol=0.03)


def test_the_temperature_divides_the_distances():
    layer = make(CODES, kind=SoftEM, num_samples=10, temperature=4.0)
    samples = array(layer.sample(np.full((20_000, 1), 0.5, "float32")))
    expected = probabilities(np.array([[0.5]]), CODES, temperature=4.0)[0]
    frequencies = np.bincount(samples.ravel(), minlength=3) / samples.size
    np.testing.assert_allclose(frequencies, expected, atol=4 * np.sqrt(0.25 / samples.size))


@pytest.mark.parametrize("num_samples", [1, 3, 10])
@pytest.mark.parametrize("limit", ["cold", "far apart"])
def test_in_the_limit_it_is_hard_em(limit, num_samples, rng):
    codes, latents = rng.normal(size=(12, 4)), rng.normal(size=(2, 60, 4))
    if limit == "far apart":
        # Latents beside the codes: halfway between two of them no distance makes a draw certain.
        codes = 40 * codes
        latents = latents + codes[rng.integers(12, size=(2, 60))]
    latents = latents.astype("float32")
    mask = rng.uniform(size=(2, 60)) < 0.8
    arguments = {"restart_threshold": 0.3, "epsilon": 1e-5, "decay": 0.8}
    soft = make(codes, SoftEM, num_samples=num_samples, temperature=1e-9 if limit == "cold" else 1.0, **arguments)
    hard = make(codes, VectorQuantizer, **arguments)
    for _ in range(4):
        ours, theirs = (call(layer, latents, mask=mask, training=True) for layer in (soft, hard))
        np.testing.assert_array_equal(ours["samples"], np.repeat(theirs["samples"], num_samples, -1))
        np.testing.assert_array_equal(ours["codes"], theirs["codes"])
        for name in ("quantized", "loss"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6 if BACKEND == "jax" else 0)
        for part in ("counts", "sums", "embeddings"):
            ours, theirs = (array(getattr(layer.codebook, part)) for layer in (soft, hard))
            # To the last bit, but that XLA rounds the same formula differently in two programs.
            np.testing.assert_allclose(ours, theirs, rtol=3e-7 if BACKEND == "jax" else 0)


@pytest.mark.parametrize("num_samples", [1, 3, 10])
def test_a_latent_counts_1_however_many_samples_it_has(num_samples, rng):
    layer = make(rng.normal(size=(5, 2)), kind=SoftEM, num_samples=num_samples, decay=0.0, temperature=3.0)
    latents = rng.normal(size=(4, 9, 2)).astype("float32")
    outputs = call(layer, latents, training=True)
    shares = np.bincount(outputs["samples"].ravel(), minlength=5) / num_samples
    np.testing.assert_allclose(array(layer.codebook.counts)[0], shares, rtol=1e-6)
    assert array(layer.codebook.counts).sum() == pytest.approx(36, rel=1e-6)
    np.testing.assert_allclose(array(layer.codebook.sums)[0].sum(0), latents.sum((0, 1)), atol=1e-4)


def test_the_output_is_the_mean_of_the_samples(rng):
    codes = rng.normal(size=(5, 2)).astype("float32")
    layer = make(codes, kind=SoftEM, num_samples=7, temperature=3.0)
    outputs = call(layer, rng.normal(size=(6, 2)).astype("float32"), training=True)
    assert len(np.unique(outputs["samples"])) > 2
    np.testing.assert_allclose(outputs["quantized"], codes[outputs["samples"]].mean(-2), atol=1e-6)


def test_the_same_seed_draws_the_same(rng):
    codes, latents = rng.normal(size=(30, 2)), rng.normal(size=(50, 2)).astype("float32")
    first, twin, other = (make(codes, kind=SoftEM, seed=seed) for seed in (5, 5, 6))
    draws = [[array(layer.sample(latents)) for _ in range(2)] for layer in (first, twin, other)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0][0] != draws[0][1]).any()
    assert (draws[0][0] != draws[2][0]).any()


def test_evaluation_modes(rng):
    codes, latents = rng.normal(size=(30, 2)), rng.normal(size=(50, 2)).astype("float32")
    argmin = make(codes, kind=SoftEM, num_samples=4)
    outputs = call(argmin, latents, training=False)
    assert outputs["samples"].shape == (50, 1)
    np.testing.assert_array_equal(outputs["samples"][:, 0], outputs["codes"])
    sample = make(codes, kind=SoftEM, num_samples=4, eval_mode="sample")
    twin = make(codes, kind=SoftEM, num_samples=4)
    outputs = call(sample, latents, training=False)
    np.testing.assert_array_equal(outputs["samples"], call(twin, latents, training=True)["samples"])
    np.testing.assert_array_equal(outputs["codes"], array(argmin.encode(latents)))
    np.testing.assert_array_equal(embeddings_of(sample)[0], codes.astype("float32"))


@pytest.mark.parametrize("kind", [SoftEM, VectorQuantizer])
def test_latents_that_are_no_numbers_move_nothing(kind, rng):
    """The rows beside them end as without them; theirs get no code, and an output by which the loss says so."""
    codes, latents = rng.normal(size=(30, 2)), rng.normal(size=(6, 2)).astype("float32")
    broken = latents.copy()
    broken[1, 0], broken[4, 1] = np.nan, np.inf
    keep = np.array([True, False, True, True, False, True])
    outputs, states = [], []
    for values, mask in ((broken, None), (latents, keep)):
        layer = make(codes, kind=kind)
        outputs.append(call(layer, values, mask=mask, training=True))
        states.append(state(layer))
    assert_same_state(*states)
    # XLA rounds one formula differently in two programs.
    assert outputs[0]["loss"] == pytest.approx(outputs[1]["loss"], rel=1e-6)
    for name in ("codes", "samples"):
        np.testing.assert_array_equal(outputs[0][name], outputs[1][name])
        assert (outputs[0][name][~keep] == -1).all()
    assert np.isnan(outputs[0]["quantized"][~keep]).all()
    np.testing.assert_array_equal(outputs[0]["quantized"][keep], outputs[1]["quantized"][keep])
    np.testing.assert_array_equal(array(layer.encode(broken)) == -1, ~keep)
