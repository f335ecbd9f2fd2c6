"""The image autoencoder with latents drawn from a distribution: its two terms against the bound, draw by draw."""

import math

import keras
import numpy as np
import pytest
from keras import ops
from scipy import special

from vq_keras.bottlenecks import CategoricalSamples, Gaussian, GaussianSamples
from vq_keras.errors import InputError
from vq_keras.models.image import ImageAutoencoder
from vq_keras.models.terms import DrawsAsImages
from vq_keras.priors import ImageTransformer

SHAPE, NUM_DIMS, NUM_LATENTS = (8, 8, 3), 192, 40
MAKERS = {
    "gaussian": lambda: Gaussian(seed=5),
    "categorical_samples": lambda: CategoricalSamples(16, num_samples=3, seed=5),
    "gaussian_samples": lambda: GaussianSamples(3, seed=5),
    "separate codebooks": lambda: CategoricalSamples(16, num_codebooks=10, num_samples=3, seed=5),
}
ALL = pytest.mark.parametrize("name", MAKERS)


def images(count=4):
    return np.random.default_rng(0).integers(0, 256, (count, *SHAPE), dtype="uint8")


def model(name, **kwargs):
    return ImageAutoencoder(MAKERS[name](), SHAPE, **{"likelihood": "mse", **kwargs})


def predictor():
    return ImageTransformer((2, 2, 10), 16, 1, 1, 16, 2, 16, 8, dropout=0.0)


def array(tensor):
    return ops.convert_to_numpy(tensor).astype("float64")


def bound_by_hand(whole, x, state):
    """The bound of each image and its term of reconstruction, negative, each draw decoded alone."""
    whole.bottleneck.seed_generator.state.assign(state)
    encoded = whole.bottleneck(whole.encoder(x), training=False)
    parameters = [whole.decoder(encoded["vectors"][..., j, :]) for j in range(encoded["vectors"].shape[-2])]
    log_likelihoods = np.stack([array(whole.likelihood.log_prob(each, x)) for each in parameters], axis=-1)
    if "kl" in encoded:
        return log_likelihoods[:, 0] - array(encoded["kl"]).sum((1, 2, 3)), -log_likelihoods[:, 0]
    log_priors, log_probs = (array(encoded[name]).sum((1, 2, 3)) for name in ("log_priors", "log_probs"))
    log_weights = log_likelihoods + log_priors - log_probs
    bound = special.logsumexp(log_weights, axis=-1) - math.log(log_weights.shape[-1])
    return bound, -(special.softmax(log_weights, axis=-1) * log_likelihoods).sum(-1)


@pytest.mark.slow
@ALL
def test_the_two_terms_are_the_bound_of_the_same_draws(name):
    whole, x = model(name), images()
    state = array(whole.bottleneck.seed_generator.state).astype("uint32")
    outputs = whole({"images": x}, training=False)
    bound, reconstruction = bound_by_hand(whole, x, state)
    nats_x, nats_z = array(outputs["nll_x"]) * NUM_DIMS, array(outputs["nll_z"]) * NUM_LATENTS
    # float32 sums of thousands of nats.
    np.testing.assert_allclose(nats_x + nats_z, -bound, rtol=1e-5)
    np.testing.assert_allclose(nats_x, reconstruction, rtol=1e-5)
    assert ("codes" in outputs) == whole.bottleneck.has_codes

    loss = whole.compute_loss({"images": x}, None, outputs)
    assert float(loss) == pytest.approx(-bound.mean() / NUM_DIMS, rel=1e-5)
    figures = whole.compute_metrics({"images": x}, None, outputs)
    assert float(figures["bits_per_dim"]) == pytest.approx(-bound.mean() / NUM_DIMS / math.log(2), rel=1e-5)
    assert ("perplexity" in figures) == ("codes_in_use" in figures) == whole.bottleneck.has_codes


def test_draws_become_images_of_a_larger_batch():
    vectors = np.arange(2 * 3 * 5 * 4).reshape(2, 3, 5, 4)
    found = array(DrawsAsImages()(vectors))
    np.testing.assert_array_equal(found, [vectors[b, :, j] for b in range(2) for j in range(5)])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gaussian", "categorical_samples", "gaussian_samples"])
def test_some_steps_of_training_raise_the_bound_and_a_file_keeps_them(name, tmp_path):
    """The file holds the state of the draws, too: both models go on to the same ones."""
    whole, x = model(name), np.repeat(images(1), 8, axis=0)
    whole.compile(keras.optimizers.Adam(3e-3, clipnorm=1.0))
    before = [array(weight) for weight in whole.trainable_variables]
    history = whole.fit({"images": x}, batch_size=8, epochs=40, verbose=0).history
    # One image learned by heart, from about 40 bits.
    assert history["bits_per_dim"][-1] < 0.7 * history["bits_per_dim"][0]
    np.testing.assert_allclose(np.multiply(history["bits_per_dim"], math.log(2)), history["loss"], rtol=1e-4)
    for weight, start in zip(whole.trainable_variables, before, strict=True):
        assert (array(weight) != start).any(), weight.path

    whole.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for one, other in zip(whole.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(array(one), array(other), err_msg=one.path)
    ours, theirs = (each.predict({"images": x}, batch_size=8, verbose=0) for each in (whole, loaded))
    for key in ours:
        np.testing.assert_array_equal(ours[key], theirs[key])


@pytest.mark.parametrize("name", ["gaussian", "gaussian_samples"])
def test_images_are_encoded_to_means_and_decoded_from_vectors(name):
    whole, x = model(name), images()
    means = whole.encode(x)
    assert means.shape == (4, 2, 2, 10, 8)
    np.testing.assert_array_equal(array(means), array(whole.bottleneck(whole.encoder(x))["quantized"]))
    decoded = whole.decode(means)
    np.testing.assert_array_equal(array(decoded), array(whole.likelihood.mode(whole.decoder(means))))
    np.testing.assert_array_equal(array(whole.reconstruct(x)), array(decoded))
    assert keras.backend.standardize_dtype(decoded.dtype) == "uint8"


def test_a_configuration_tells_the_bottleneck_from_the_likelihood_of_that_name():
    whole = model("gaussian")
    again = ImageAutoencoder.from_config(whole.get_config())
    assert type(again.bottleneck) is type(whole.bottleneck)
    assert type(again.likelihood) is type(whole.likelihood)
    assert again.bottleneck.get_config() == whole.bottleneck.get_config()


def test_a_latent_predictor_learns_the_most_likely_codes_beside_the_bound():
    whole, x = model("categorical_samples", latent_predictor=predictor(), predictor_weight=0.5), images()
    outputs = whole({"images": x}, training=False)
    samples = ops.reshape(whole.encode(x), (4, NUM_LATENTS, 1))
    assert (array(outputs["codes"]).ravel() == array(samples).ravel()).all()
    latent_predictor = whole.latent_predictor
    expected = array(latent_predictor.cross_entropy(samples, latent_predictor(samples))) / NUM_LATENTS
    np.testing.assert_allclose(array(outputs["nll_codes"]), expected, rtol=1e-5)
    bound = array(outputs["nll_x"]) + NUM_LATENTS / NUM_DIMS * array(outputs["nll_z"])
    loss = float(whole.compute_loss({"images": x}, None, outputs))
    assert loss == pytest.approx(bound.mean() + 0.5 * expected.mean(), rel=1e-5)
    added = model("categorical_samples").with_latent_predictor(predictor())
    assert added({"images": x})["nll_codes"].shape == (4,)


@pytest.mark.parametrize("name", ["gaussian", "gaussian_samples"])
def test_a_latent_predictor_needs_codes(name):
    with pytest.raises(InputError, match="has no codes for a latent predictor"):
        model(name, latent_predictor=predictor())


@ALL
def test_mixed_precision_keeps_the_bound_in_float32(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    whole = model(name)
    outputs = whole({"images": images()}, training=True)
    for term in ("nll_x", "nll_z"):
        assert keras.backend.standardize_dtype(outputs[term].dtype) == "float32"
        assert np.isfinite(array(outputs[term])).all()
