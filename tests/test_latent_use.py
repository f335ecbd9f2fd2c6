"""The use of latents by a code autoencoder against loops in numpy."""

import math

import numpy as np
import pytest
from keras import ops

from tests.compiled import compiled, numpy
from vq_keras import latent_use
from vq_keras.bottlenecks import Gaussian, VectorQuantizer
from vq_keras.errors import InputError
from vq_keras.models.code_autoencoder import CodeAutoencoder

SIZES = {"latent_dim": 4, "hidden_dim": 8, "pixel_cnn_layers": 1, "pixel_cnn_dim": 8}


def make(bottleneck):
    model = CodeAutoencoder(bottleneck, (4, 4), num_codes=6, **SIZES)
    # Weights on which latents matter, the same on every backend.
    rng = np.random.default_rng(0)
    for weight in model.pixel_cnn.weights:
        weight.assign(rng.normal(size=weight.shape) * 0.5)
    return model


def codes(count=10):
    return np.random.default_rng(1).integers(0, 6, (count, 4, 4)).astype("int32")


def nats_of(model, fields, vectors):
    """-log p of each field, worked out in float64 from the logits."""
    samples = fields.reshape(-1, 16, 1)
    context = model.decoder(ops.convert_to_tensor(vectors))
    logits = compiled(model.pixel_cnn)({"samples": ops.convert_to_tensor(samples), "context": context})
    logits = numpy(logits).astype("float64")
    log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return -np.array([[row[t, ids[t, 0]] for t in range(16)] for row, ids in zip(log_probs, samples, strict=True)]).sum(
        1
    )


def assert_drop(figures, name, own, shuffled):
    drops = [(b - a) / math.log(2) for a, b in zip(own, shuffled, strict=True)]
    mean = sum(drops) / len(drops)
    error = math.sqrt(sum((drop - mean) ** 2 for drop in drops) / (len(drops) - 1) / len(drops))
    # Sums of 16 float32 logarithms.
    assert figures[f"{name}_bits_per_image"] == pytest.approx(mean, abs=1e-4)
    assert figures[f"{name}_standard_error"] == pytest.approx(error, abs=1e-4)
    assert figures[f"{name}_in_standard_errors"] == pytest.approx(mean / error, rel=1e-3)
    assert abs(mean) > 0.01


@pytest.mark.parametrize("num_images", [2, 3, 50])
def test_each_image_gets_the_latents_of_another_and_each_serves_once(num_images):
    others = latent_use.other_images(num_images, seed=3)
    assert sorted(others) == list(range(num_images))
    assert (others != np.arange(num_images)).all()
    np.testing.assert_array_equal(others, latent_use.other_images(num_images, seed=3))
    if num_images == 50:
        assert (others != latent_use.other_images(num_images, seed=4)).any()


def test_figures_of_codes():
    model = make(VectorQuantizer(8, num_codebooks=3, seed=0))
    model.bottleneck.codebook.set(np.random.default_rng(2).normal(size=(3, 8, 4)))
    fields = codes()
    figures = latent_use.evaluate(model, fields, batch_size=4, seed=1)

    latents = numpy(model.encode(fields)).astype(int)
    embeddings = numpy(model.bottleneck.codebook.embeddings)
    vectors = np.stack([embeddings[place, latents[:, place]] for place in range(3)], axis=1)
    others = latent_use.other_images(10, seed=1)
    own, shuffled = nats_of(model, fields, vectors), nats_of(model, fields, vectors[others])
    assert_drop(figures, "drop", own, shuffled)
    bits = own.mean() / math.log(2)
    assert figures["bits_per_image_codes"] == pytest.approx(bits, rel=1e-5)
    assert figures["bits_per_image_latents"] == 9.0
    assert figures["bits_per_image"] == pytest.approx(bits + 9, rel=1e-5)
    assert figures["bits_per_code"] == pytest.approx(bits / 16, rel=1e-5)
    assert figures["shuffled_bits_per_image_codes"] == pytest.approx(shuffled.mean() / math.log(2), rel=1e-5)
    for place in range(3):
        shares = [np.mean(latents[:, place] == code) for code in set(latents[:, place])]
        assert figures[f"codes_in_use_{place + 1}"] == len(shares) > 1
        entropy = -sum(share * math.log(share) for share in shares)
        assert figures[f"perplexity_{place + 1}"] == pytest.approx(math.exp(entropy))
    assert figures["num_images"] == 10
    assert "drawn_drop_bits_per_image" not in figures


def test_figures_of_a_gaussian_are_of_its_means_and_the_bound_of_its_draws():
    model = make(Gaussian(seed=5))
    fields = codes()
    figures = latent_use.evaluate(model, fields, batch_size=10, seed=1)

    latents = numpy(model.encoder(fields))
    kernel, bias = (numpy(weight).astype("float64") for weight in model.bottleneck.to_moments.weights)
    means, raw = np.split(latents @ kernel + bias, 2, axis=-1)
    log_variances = 14 * np.tanh(raw / 14)
    kl = 0.5 * (means**2 + np.exp(log_variances) - 1 - log_variances).sum(axis=(1, 2))
    others = latent_use.other_images(10, seed=1)
    means = means.astype("float32")
    own, shuffled = nats_of(model, fields, means), nats_of(model, fields, means[others])
    assert_drop(figures, "drop", own, shuffled)
    assert figures["bits_per_image_latents"] == pytest.approx(kl.mean() / math.log(2), rel=1e-5)
    assert figures["bits_per_image"] == pytest.approx(
        figures["bits_per_image_codes"] + figures["bits_per_image_latents"], rel=1e-6
    )
    # Draws of deviation 1/7 around means of order one: near the figures of the means, and not those.
    bits = own.mean() / math.log(2)
    assert figures["bits_per_image_codes"] == pytest.approx(bits, rel=0.02)
    assert figures["bits_per_image_codes"] != pytest.approx(bits, rel=1e-5)
    assert not any(name.startswith("perplexity") for name in figures)
    # Draws of deviation 1/1000, where both figures are of nearly the same vectors.
    model.bottleneck.to_moments.bias.assign([0.0] * means.shape[-1] + [-100.0] * means.shape[-1])
    figures = latent_use.evaluate(model, fields, batch_size=10, seed=1)
    assert figures["drawn_drop_bits_per_image"] == pytest.approx(figures["drop_bits_per_image"], rel=0.05)
    assert figures["drawn_drop_bits_per_image"] != figures["drop_bits_per_image"]


def test_latents_that_are_all_the_same_make_no_difference():
    model = make(VectorQuantizer(8, num_codebooks=3, seed=0))
    model.bottleneck.codebook.set(np.concatenate([np.zeros((3, 1, 4)), np.full((3, 7, 4), 99.0)], axis=1))
    figures = latent_use.evaluate(model, codes(), batch_size=4)
    assert figures["drop_bits_per_image"] == figures["drop_in_standard_errors"] == 0.0
    assert figures["perplexity_2"] == pytest.approx(1.0)


def test_the_table_has_a_row_for_each_figure():
    figures = latent_use.evaluate(make(VectorQuantizer(8, num_codebooks=3, seed=0)), codes(), batch_size=5)
    rows = latent_use.table(figures)
    assert rows.row_count == len(figures)
    assert list(rows.columns[0].cells)[-3:] == ["perplexity of latent 3", "codes in use of latent 3", "images"]


@pytest.mark.parametrize(
    "fields, sentence",
    [
        (codes(1), r"there are 1 images; latents can be exchanged from two on\."),
        (codes()[:, :3], r"codes have the shape \(3, 4\), but the model needs \(4, 4\)\."),
    ],
)
def test_wrong_codes(fields, sentence):
    with pytest.raises(InputError, match=f"^{sentence}$"):
        latent_use.evaluate(make(VectorQuantizer(8, num_codebooks=3, seed=0)), fields)
