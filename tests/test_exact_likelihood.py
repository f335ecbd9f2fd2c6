"""p(x | z_q) p(z_q) as an approximation of p(x), against the sum over all codes."""

import keras
import numpy as np
import pytest

from vq_keras import exact_likelihood
from vq_keras.bottlenecks import VectorQuantizer
from vq_keras.errors import InputError
from vq_keras.models.image import ImageAutoencoder
from vq_keras.priors import PixelCNN
from vq_keras.scoring import Score

SHAPE = (4, 4, 1)


def make(num_codes=4, latents_per_position=2, **kwargs):
    keras.utils.set_random_seed(0)
    bottleneck = VectorQuantizer(num_codes=num_codes, seed=0)
    return ImageAutoencoder(bottleneck, SHAPE, latents_per_position=latents_per_position, **kwargs)


def patterns():
    """Eight pictures of few levels."""
    return np.random.default_rng(0).choice([0, 80, 160, 240], size=(8, *SHAPE)).astype("uint8")


def of_the_encoders_codes(model, images):
    score = Score(model)
    terms = score.predict_on_batch({"images": images, "samples": np.asarray(model.encode(images))[..., None]})
    return -terms["nll_x"].astype("float64") - terms["nll_z"]


@pytest.mark.parametrize("predicted", [False, True])
def test_the_sum_is_the_mean_over_fields_by_hand(predicted):
    latent_predictor = PixelCNN((1, 1, 2), 4, num_layers=1, hidden_dim=8, dropout=0.0) if predicted else None
    model, images = make(latent_predictor=latent_predictor), patterns()[:2]
    by_hand = np.full(2, -np.inf)
    for first in range(4):
        for second in range(4):
            codes = np.array([[[[first, second]]]] * 2, "int32")
            parameters = model.decoder(model.bottleneck.decode(codes))
            log_prior = -2 * np.log(4)
            if predicted:
                log_probs = keras.ops.log_softmax(latent_predictor(codes.reshape(2, 2, 1)))
                log_prior = float(log_probs[0, 0, first] + log_probs[0, 1, second])
            log_probs = np.asarray(model.likelihood.log_prob(parameters, images))
            by_hand = np.logaddexp(by_hand, log_probs + log_prior)
    # 16 sub-pixels of ln 256 are 89 nats, of which float32 keeps six digits.
    np.testing.assert_allclose(exact_likelihood.log_likelihood(model, images), by_hand, rtol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a minute of training on JAX, unoptimised")
def test_the_encoders_code_is_all_of_the_sum_once_each_image_has_its_own():
    model, images = make(num_codes=8, latents_per_position=1), patterns()
    untrained = exact_likelihood.log_likelihood(model, images) - of_the_encoders_codes(model, images)
    model.compile(keras.optimizers.Adam(3e-3))
    model.fit({"images": np.tile(images, (800, 1, 1, 1))}, batch_size=8, shuffle=False, verbose=0)
    trained = exact_likelihood.log_likelihood(model, images) - of_the_encoders_codes(model, images)
    # Codes that all explain an image equally well make the sum 8 times its one term.
    np.testing.assert_allclose(untrained, np.log(8), atol=0.2)
    # It is never below the term, but for the rounding of float32 sums of up to 100 nats.
    np.testing.assert_allclose(trained, 0, atol=1e-4)
    assert len(set(np.asarray(model.encode(images)).ravel())) == 8


def test_too_many_fields_are_refused():
    model = ImageAutoencoder(VectorQuantizer(num_codes=16), (8, 8, 3))
    with pytest.raises(InputError, match=r"there are 16\^40 fields of codes, too many to sum over"):
        exact_likelihood.log_likelihood(model, np.zeros((1, 8, 8, 3), "uint8"))
