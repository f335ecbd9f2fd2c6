"""The autoencoder of codes: its loss and metrics against the parts, exact likelihoods, draws, round trips, learning."""

import itertools
import math

import keras
import numpy as np
import pytest
from keras import ops

from tests.compiled import compiled, numpy
from vq_keras import latent_use
from vq_keras.bottlenecks import CategoricalSamples, Gaussian, SoftEM, VectorQuantizer
from vq_keras.errors import InputError
from vq_keras.models.code_autoencoder import CodeAutoencoder

SIZES = {"latent_dim": 4, "hidden_dim": 8, "pixel_cnn_layers": 1, "pixel_cnn_dim": 8}


def make(bottleneck=None, code_shape=(4, 5), num_codes=6, **sizes):
    bottleneck = bottleneck or VectorQuantizer(8, num_codebooks=3, seed=0)
    return CodeAutoencoder(bottleneck, code_shape, num_codes, **{**SIZES, **sizes})


def codes(count=6, code_shape=(4, 5)):
    return np.random.default_rng(0).integers(0, 6, (count, *code_shape)).astype("int32")


def outputs_of(model, fields):
    return model.predict({"codes": fields}, batch_size=len(fields), verbose=0)


@pytest.mark.parametrize("code_shape", [(21, 21), (4, 5), (2, 2), (1, 7)])
def test_the_context_has_a_vector_for_each_position_that_is_as_loud_as_the_latents(code_shape):
    model = make(code_shape=code_shape, hidden_dim=32, latent_dim=32)
    assert model.encoder(codes(2, code_shape)).shape == (2, 3, 32)
    # The variance of the latents, one, stays near that through all layers of the decoder; borders have less.
    context = numpy(model.decoder(np.random.default_rng(0).normal(size=(32, 3, 32)).astype("float32")))
    assert context.shape == (32, *code_shape, 32)
    assert 0.3 < context.std() < 3.0


def test_the_loss_of_codes_is_the_sum_of_its_terms():
    model, fields = make(), codes()
    model.bottleneck.codebook.set(np.random.default_rng(2).normal(size=(3, 8, 4)))
    outputs = outputs_of(model, fields)

    latents = numpy(model.encoder(fields))
    embeddings = numpy(model.bottleneck.codebook.embeddings)
    distances = np.square(latents[:, :, None] - embeddings).sum(-1)
    nearest = distances.argmin(-1)
    quantized = np.stack([embeddings[place, nearest[:, place]] for place in range(3)], axis=1)
    samples = ops.convert_to_tensor(fields.reshape(6, 20, 1))
    logits = model.pixel_cnn({"samples": samples, "context": model.decoder(ops.convert_to_tensor(quantized))})
    nats = numpy(model.pixel_cnn.cross_entropy(samples, logits))

    np.testing.assert_array_equal(outputs["latent_codes"], nearest)
    np.testing.assert_allclose(outputs["nll_x"], nats / 20, rtol=1e-5)
    np.testing.assert_allclose(outputs["nll_z"], math.log(8), rtol=1e-6)
    np.testing.assert_allclose(outputs["distances"], distances.min(-1) / 4, rtol=1e-4)
    model.compile("adam")
    figures = model.evaluate({"codes": fields}, verbose=0, return_dict=True)
    commitment = 0.25 * distances.min(-1).sum(axis=-1).mean()  # of an image: over 3 latents of 4 dimensions
    assert figures["loss"] == pytest.approx((nats.mean() + commitment) / 20, rel=1e-5)
    assert figures["bits_per_image"] == pytest.approx((nats.mean() + 3 * math.log(8)) / math.log(2), rel=1e-5)
    assert figures["codes_in_use"] == sum(len(set(nearest[:, place])) for place in range(3))
    np.testing.assert_allclose(numpy(model.nats(fields, model.encode(fields))), nats, rtol=1e-5)


def test_the_loss_of_a_gaussian_is_the_evidence_bound_of_a_code():
    model, fields = make(Gaussian(seed=3)), codes()
    model.compile("adam")
    figures = model.evaluate({"codes": fields}, verbose=0, return_dict=True)
    latents = numpy(model.encoder(fields))
    kernel, bias = (numpy(weight).astype("float64") for weight in model.bottleneck.to_moments.weights)
    means, raw = np.split(latents @ kernel + bias, 2, axis=-1)
    log_variances = 14 * np.tanh(raw / 14)
    kl = 0.5 * (means**2 + np.exp(log_variances) - 1 - log_variances).sum(axis=-1)  # (images, latents)
    assert figures["nll_z"] == pytest.approx(kl.mean(), rel=1e-5)
    assert figures["loss"] == pytest.approx(figures["nll_x"] + 3 / 20 * kl.mean(), rel=1e-5)
    assert figures["bits_per_image"] == pytest.approx(20 * figures["loss"] / math.log(2), rel=1e-5)
    np.testing.assert_allclose(numpy(model.encode(fields)), means, atol=1e-5)
    # Draws of deviation 1/7 around the means: the decoder gets another vector each time.
    first, second = (outputs_of(model, fields)["nll_x"] for _ in range(2))
    assert np.abs(first - second).min() > 0


def test_probabilities_of_all_fields_sum_to_one_whatever_the_latents():
    model = make(code_shape=(2, 2), num_codes=3)
    fields = np.array(list(itertools.product(range(3), repeat=4)), "int32").reshape(81, 2, 2)
    of_latents = []
    for latents in ([0, 1, 2], [7, 7, 0]):
        nats = numpy(compiled(model.nats)(fields, np.tile(np.int32(latents), (81, 1))))
        of_latents.append(np.exp(-nats.astype("float64")))
        assert of_latents[-1].sum() == pytest.approx(1.0, abs=1e-5)
    assert np.abs(of_latents[0] - of_latents[1]).max() > 1e-5


@pytest.mark.parametrize("bottleneck", ["codes", "gaussian"])
def test_draws_given_latents_have_the_probabilities_of_nats(bottleneck):
    model = make(Gaussian(seed=0) if bottleneck == "gaussian" else None, code_shape=(1, 2), num_codes=3)
    latents = model.encode(codes(1, (1, 2)) % 3)
    fields = np.array(list(itertools.product(range(3), repeat=2)), "int32").reshape(9, 1, 2)
    expected = np.exp(-numpy(model.nats(fields, ops.repeat(latents, 9, axis=0))))
    uniforms = np.random.default_rng(0).random((4000, 2), dtype="float32")
    drawn = numpy(compiled(model.generate)(ops.repeat(latents, 4000, axis=0), uniforms)).astype(int)
    shares = np.bincount(drawn[:, 0, 0] * 3 + drawn[:, 0, 1], minlength=9) / 4000
    # Five standard errors of a share of 4,000 draws.
    assert (np.abs(shares - expected) < 5 * np.sqrt(expected * (1 - expected) / 4000)).all()
    greedy = numpy(model.generate(ops.repeat(latents, 2, axis=0), uniforms[:2], temperature=0.0))
    np.testing.assert_array_equal(greedy[0], greedy[1])


@pytest.mark.parametrize("bottleneck", ["soft_em", "gaussian"])
def test_training_reaches_every_weight_and_a_file_gives_the_same_model(bottleneck, tmp_path):
    soft_em = SoftEM(8, num_samples=2, num_codebooks=3, seed=0)
    model = make(Gaussian(seed=0) if bottleneck == "gaussian" else soft_em, dropout=0.1)
    model.compile(keras.optimizers.Adam(1e-2))
    before = [numpy(weight) for weight in model.trainable_weights]
    model.fit({"codes": codes(16)}, batch_size=8, verbose=0)
    pairs = zip(model.trainable_weights, before, strict=True)
    assert [weight.path for weight, old in pairs if (numpy(weight) == old).all()] == []

    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again) is CodeAutoencoder
    assert {**again.get_config(), "bottleneck": None} == {**model.get_config(), "bottleneck": None}
    assert again.bottleneck.get_config() == model.bottleneck.get_config()
    for one, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(numpy(one), numpy(other), err_msg=one.path)
    np.testing.assert_array_equal(numpy(model.encode(codes())), numpy(again.encode(codes())))


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"num_latents": 0}, "num_latents is 0; give at least 1."),
        ({"hidden_dim": 0}, "hidden_dim is 0; give at least 1."),
        ({"pixel_cnn_layers": 0}, "num_layers is 0; give at least 1."),
        (
            {"bottleneck": CategoricalSamples(8, num_samples=3)},
            "the bound of a CategoricalSamples needs several draws for each image, which this model does not decode; "
            "give a Gaussian, or a bottleneck without a bound.",
        ),
    ],
)
def test_bad_arguments(wrong, sentence):
    with pytest.raises(InputError, match=f"^{sentence}$"):
        make(**wrong)


@pytest.mark.slow
def test_the_latents_learn_what_a_pixel_cnn_cannot_see():
    # 16 scenes, each a field of its own of which every code is replaced by any in one case of five. The PixelCNN sees
    # two rows and columns back; which scene it is the latents have to tell.
    rng = np.random.default_rng(0)
    scenes = rng.integers(0, 6, (16, 6, 6))

    def draw(count):
        fields = scenes[rng.integers(0, 16, count)]
        noise = rng.random(fields.shape) < 0.2
        return np.where(noise, rng.integers(0, 6, fields.shape), fields).astype("int32")

    model = make(code_shape=(6, 6), hidden_dim=32, latent_dim=8, pixel_cnn_dim=16)
    model.compile(keras.optimizers.Adam(5e-3))
    model.fit({"codes": draw(32 * 400)}, batch_size=32, verbose=0)
    figures = latent_use.evaluate(model, draw(512), batch_size=64)
    right = 0.8 + 0.2 / 6
    entropy = -(right * math.log2(right) + (1 - right) * math.log2((1 - right) / 5))
    # 1.04 bits. With the latents of another scene each code costs 2.8 more.
    assert figures["bits_per_code"] == pytest.approx(entropy, abs=0.1)
    assert figures["drop_bits_per_image"] > 60
    assert figures["drop_in_standard_errors"] > 30
