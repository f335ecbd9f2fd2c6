"""The terms of an autoencoder's loss and of its bits/dim, as layers, so that a functional model can be made of them."""

import math

import keras
from keras import ops

from vq_keras import vimco


@keras.saving.register_keras_serializable(package="vq_keras")
class ReconstructionTerm(keras.layers.Layer):
    """-log p(x | codes) of each image, in nats per dimension: (images, parameters) -> (batch,)."""

    def __init__(self, likelihood, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.likelihood = likelihood

    def call(self, images, parameters):
        return -self.likelihood.log_prob(parameters, images) / math.prod(images.shape[1:])

    def compute_output_spec(self, images, parameters):
        return keras.KerasTensor(images.shape[:1], dtype="float32")


@keras.saving.register_keras_serializable(package="vq_keras")
class LatentTerm(keras.layers.Layer):
    """-log p(codes) of each image, in nats per code: samples (batch, *positions, m) and, where the predictor has them,
    classes (batch,) and a context -> (batch,).

    With m samples the labels are soft: the mean of the cross entropies of the samples (roy2018 section 3.2). The
    predictor reads ids, so no gradient goes back to the encoder, as in the released code of the image model. One does
    go back to a context.
    """

    def __init__(self, latent_predictor, **kwargs):
        super().__init__(**kwargs)
        self.latent_predictor = latent_predictor

    def call(self, samples, classes=None, context=None, training=None):
        num_codes = math.prod(samples.shape[1:-1])
        samples = ops.reshape(samples, (-1, num_codes, samples.shape[-1]))
        nats = self.latent_predictor.nats(samples, classes, context, training)
        return nats / num_codes

    def compute_output_spec(self, samples, classes=None, context=None, training=None):
        return keras.KerasTensor(samples.shape[:1], dtype="float32")


@keras.saving.register_keras_serializable(package="vq_keras")
class DrawsAsImages(keras.layers.Layer):
    """Each draw of each image as one of a larger batch: (batch, *positions, m, dim) -> (batch m, *positions, dim)."""

    def call(self, vectors):
        *positions, _, dim = vectors.shape[1:]
        return ops.reshape(ops.moveaxis(vectors, -2, 1), (-1, *positions, dim))

    def compute_output_spec(self, vectors):
        *positions, _, dim = vectors.shape[1:]
        return keras.KerasTensor((None, *positions, dim), dtype=vectors.dtype)


@keras.saving.register_keras_serializable(package="vq_keras")
class BoundTerms(keras.layers.Layer):
    """The two terms of a lower bound on log p(x), negative, of each image: reconstruction and what the latents cost.

    (images, parameters of the draws as `DrawsAsImages` orders them, scores) -> {"nll_x", "nll_z"}, both (batch,), in
    nats per dimension and per latent. Their sum over both is the negative bound, and its gradient that of the loss:

    - scores {"kl"}: the evidence bound, -log p(x | z) of the draw and the divergence of q from the prior.
    - scores {"log_probs", "log_priors"}: the bound of m samples, parted as in `vimco.reconstruction`, with VIMCO's
      gradient. `nll_x` alone has none: it would train the decoder on the best draws twice.
    """

    def __init__(self, likelihood, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.likelihood = likelihood

    def call(self, images, parameters, scores):
        positions = (scores["kl"] if "kl" in scores else scores["log_probs"][..., 0]).shape[1:]
        num_samples = 1 if "kl" in scores else scores["log_probs"].shape[-1]
        each = ops.repeat(images, num_samples, axis=0)
        log_likelihoods = ops.reshape(self.likelihood.log_prob(parameters, each), (-1, num_samples))
        totals = {name: ops.sum(score, axis=range(1, 1 + len(positions))) for name, score in scores.items()}
        if "kl" in totals:
            nats_x, nats_z = -log_likelihoods[:, 0], totals["kl"]
        else:
            draws = (log_likelihoods, totals["log_priors"], totals["log_probs"])
            nats_x = ops.stop_gradient(vimco.reconstruction(*draws))
            nats_z = -vimco.surrogate(*draws) - nats_x
        return {"nll_x": nats_x / math.prod(images.shape[1:]), "nll_z": nats_z / math.prod(positions)}

    def compute_output_spec(self, images, parameters, scores):
        return {name: keras.KerasTensor(images.shape[:1], dtype="float32") for name in ("nll_x", "nll_z")}
