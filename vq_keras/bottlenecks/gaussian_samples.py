"""Several draws from a normal distribution, for a bound of many samples."""

import keras
from keras import ops

from vq_keras.bottlenecks.gaussian import Gaussian, log_normal
from vq_keras.errors import InputError


@keras.saving.register_keras_serializable(package="vq_keras")
class GaussianSamples(Gaussian):
    """Draws m vectors for each latent and scores them: VIMCO with a Gaussian prior (Mnih and Rezende 2016).

        z^1 .. z^m ~ q(z | x) = N(mean, exp(s)),    log_probs_j = log q(sg(z^j) | x),    log_priors_j = log N(z^j; 0, I)

    with mean and s as in `Gaussian`. The draws let no gradient through, unlike there: the estimator of
    `vq_keras.vimco` reaches mean and variance by `log_probs` alone. One of the baselines of oord2017 section 4.1.

    A model decodes all draws: its decoder's memory and time are those of m times the batch.

    Args:
        num_samples: m, at least 2: the draws are each other's baseline. 50 in oord2017.
        seed: of the draws.

    Shapes:
        latents (batch, *positions, dim). `call` gives "quantized", like the latents: the first draw in training, the
        mean in evaluation; "vectors" (batch, *positions, m, dim), drawn in both; "log_probs" and "log_priors" float32
        (batch, *positions, m): nats of each draw, 0 where masked.

    Raises:
        InputError: for fewer than 2 samples, or latents and a mask that do not fit.

    Example:
        >>> outputs = GaussianSamples(num_samples=5)(keras.random.normal((2, 8, 8, 64)), training=True)
        >>> outputs["vectors"].shape, outputs["log_probs"].shape
        ((2, 8, 8, 5, 64), (2, 8, 8, 5))
    """

    outputs_of_call = ("quantized", "vectors", "log_probs", "log_priors")
    # The score of a draw is its noise over the standard deviation: narrow ones make VIMCO's gradient noise, too.
    first_log_variance = 0.0

    def __init__(self, num_samples=50, seed=None, **kwargs):
        super().__init__(seed, **kwargs)
        if num_samples < 2:
            raise InputError(f"num_samples is {num_samples}; the bound of many samples needs at least 2.")
        self.num_samples = num_samples

    def _draw(self, mean, log_variance):
        return ops.stop_gradient(super()._draw(mean, log_variance))

    def _scores(self, mean, log_variance, vectors):
        log_probs = log_normal(vectors, mean[:, :, None], log_variance[:, :, None])
        return {"log_probs": log_probs, "log_priors": log_normal(vectors)}

    def _score_shapes(self, positions):
        return [(name, (*positions, self.num_samples)) for name in ("log_probs", "log_priors")]

    def get_config(self):
        return {**super().get_config(), "num_samples": self.num_samples}
