"""Gradients: straight through to the latents, of the commitment and of the codebook loss."""

import numpy as np
import pytest
from harness import BACKEND, embeddings_of, gradients, make
from numpy_codebook import nearest

from vq_keras.bottlenecks import SoftEM, VectorQuantizer

SHAPE = (2, 5, 3)


@pytest.fixture
def case(rng):
    """Codes, latents and a gradient that comes back from the decoder."""
    return rng.normal(size=(6, 3)), rng.normal(size=SHAPE).astype("float32"), rng.normal(size=SHAPE).astype("float32")


@pytest.mark.parametrize("kind", [VectorQuantizer, SoftEM])
def test_straight_through_to_the_last_bit(kind, case):
    codes, latents, upstream = case
    for_latents, _ = gradients(make(codes, kind=kind), latents, upstream)
    np.testing.assert_array_equal(for_latents, upstream)


def test_no_gradient_from_the_decoder_to_the_codebook(case):
    codes, latents, upstream = case
    _, [for_codes] = gradients(make(codes, update="gradient"), latents, upstream)
    # No connection: None on TensorFlow, zeros on JAX.
    assert for_codes is None if BACKEND == "tensorflow" else not for_codes.any()


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_commitment_loss(update, case):
    codes, latents, _ = case
    layer = make(codes, update=update, commitment_weight=0.25)
    embeddings = embeddings_of(layer)[0]
    for_latents, _ = gradients(layer, latents)
    # The codebook loss adds nothing here: its latents are constants.
    difference = latents - embeddings[nearest(latents.reshape(-1, 3), embeddings)].reshape(SHAPE)
    np.testing.assert_allclose(for_latents, 2 * 0.25 * difference / latents.size, atol=1e-7)


def test_commitment_loss_of_soft_em(case):
    codes, latents, _ = case
    layer, twin = (make(codes, kind=SoftEM, num_samples=4, commitment_weight=0.5) for _ in range(2))
    quantized = np.array(twin(latents, training=True)["quantized"])
    for_latents, _ = gradients(layer, latents)
    np.testing.assert_allclose(for_latents, 2 * 0.5 * (latents - quantized) / latents.size, atol=1e-7)


@pytest.mark.parametrize("initializer", ["normal", "kmeans"])
def test_codebook_loss_reaches_the_codes_that_were_hit(initializer, case):
    codes, latents, _ = case
    codes[4] = 40  # Never the nearest.
    layer = make(codes, update="gradient", codebook_weight=0.7, commitment_weight=0.0, initializer=initializer)
    embeddings = embeddings_of(layer)[0]
    for_latents, [for_codes] = gradients(layer, latents)
    flat = latents.reshape(-1, 3)
    hit = nearest(flat, embeddings)
    expected = np.zeros_like(embeddings)
    for latent, code in zip(flat, hit, strict=True):
        expected[code] += 2 * 0.7 * (embeddings[code] - latent) / latents.size
    np.testing.assert_allclose(for_codes[0], expected, atol=1e-6)
    assert not for_codes[0, 4].any()
    assert not for_latents.any()


def test_masked_latents_get_no_gradient(case):
    codes, latents, upstream = case
    mask = np.array([[True, True, False, True, False], [False, True, True, True, True]])
    latents[~mask] = [np.nan, np.inf, -np.inf]
    layer = make(codes, commitment_weight=0.25)
    embeddings = embeddings_of(layer)[0]
    for_latents, _ = gradients(layer, latents, mask=mask)
    difference = latents[mask] - embeddings[nearest(latents[mask], embeddings)]
    np.testing.assert_allclose(for_latents[mask], 2 * 0.25 * difference / (mask.sum() * 3), atol=1e-7)
    assert not for_latents[~mask].any()

    for_latents, _ = gradients(make(codes), latents, upstream, mask=mask)
    np.testing.assert_array_equal(for_latents, upstream * mask[..., None])
