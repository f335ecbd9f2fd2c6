"""Both bottlenecks against an independent implementation, and what they are for: using all their codes."""

import keras
import numpy as np
import pytest
from harness import array, call, compiled, embeddings_of, make
from numpy_codebook import NumpyCodebook, inverse_cdf, nearest, probabilities

from vq_keras.bottlenecks import SoftEM, VectorQuantizer

STEPS = 20


def batches(rng, shape):
    return [(2 + rng.normal(size=shape)).astype("float32") for _ in range(STEPS)]


def assert_equal_state(layer, reference, book=0):
    np.testing.assert_allclose(array(layer.codebook.counts)[book], reference.counts, rtol=1e-5)
    np.testing.assert_allclose(array(layer.codebook.sums)[book], reference.sums, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(embeddings_of(layer)[book], reference.embeddings, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_codebooks", [1, 3])
def test_hard_em_over_20_steps(num_codebooks, rng):
    start = rng.normal(size=(num_codebooks, 24, 5)).astype("float32")
    layer = make(start if num_codebooks > 1 else start[0], decay=0.9, epsilon=1e-5, commitment_weight=1.0)
    references = [NumpyCodebook(each, decay=0.9, epsilon=1e-5) for each in start]
    for latents in batches(rng, (4, 16, num_codebooks, 5)):
        outputs = call(layer, latents if num_codebooks > 1 else latents[:, :, 0], training=True)
        errors = []
        for book, reference in enumerate(references):
            flat = latents[:, :, book].reshape(-1, 5)
            codes = nearest(flat, reference.embeddings)
            np.testing.assert_array_equal(outputs["codes"].reshape(64, num_codebooks)[:, book], codes)
            quantized, error = reference.step(flat, codes[:, None])
            ours = outputs["quantized"].reshape(64, num_codebooks, 5)[:, book]
            np.testing.assert_allclose(ours, quantized, rtol=1e-5, atol=1e-5)
            assert_equal_state(layer, reference, book)
            errors.append(error)
        assert outputs["loss"] == pytest.approx(np.mean(errors), rel=1e-5)


def test_soft_em_over_20_steps(rng):
    """The reference draws from the same uniform numbers: those of a second generator with the same seed."""
    start = rng.normal(size=(24, 5)).astype("float32")
    layer = make(start, kind=SoftEM, num_samples=5, temperature=2.0, decay=0.9, epsilon=1e-5, seed=7)
    layer.commitment_weight = 1.0
    reference, generator = NumpyCodebook(start, decay=0.9, epsilon=1e-5), keras.random.SeedGenerator(7)
    for latents in batches(rng, (64, 5)):
        outputs = call(layer, latents, training=True)
        uniforms = array(keras.random.uniform((64, 1, 5), seed=generator))[:, 0].astype("float64")
        samples = inverse_cdf(probabilities(latents, reference.embeddings, temperature=2.0), uniforms)
        np.testing.assert_array_equal(outputs["samples"], samples)
        quantized, error = reference.step(latents, samples)
        np.testing.assert_allclose(outputs["quantized"], quantized, rtol=1e-5, atol=1e-5)
        assert outputs["loss"] == pytest.approx(error, rel=1e-5)
        assert_equal_state(layer, reference)


@pytest.mark.parametrize("initializer", ["samples", "kmeans"])
@pytest.mark.parametrize("kind", [VectorQuantizer, SoftEM])
def test_codes_in_use_on_shifted_data(kind, initializer, rng):
    """Data 5 standard deviations from the origin, where codes drawn around it would win next to nothing."""
    layer = kind(512, initializer=initializer, seed=1)
    layer.build((None, 16))
    step = compiled(layer)
    for _ in range(200):
        step((5 + rng.normal(size=(1024, 16))).astype("float32"))
    codes = array(layer.encode((5 + rng.normal(size=(8192, 16))).astype("float32")))
    assert len(np.unique(codes)) >= 0.95 * 512


def test_the_same_from_a_codebook_at_the_origin(rng):
    """The restarts alone find the data, too."""
    layer = VectorQuantizer(512, initializer="normal", seed=1)
    layer.build((None, 16))
    step = compiled(layer)
    for _ in range(400):
        step((5 + rng.normal(size=(1024, 16))).astype("float32"))
    codes = array(layer.encode((5 + rng.normal(size=(8192, 16))).astype("float32")))
    assert len(np.unique(codes)) >= 0.95 * 512
