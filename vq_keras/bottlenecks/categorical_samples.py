"""Several draws of codes with their probabilities, for a bound of many samples."""

import math

import keras
from keras import ops

from vq_keras.bottlenecks import assignment
from vq_keras.bottlenecks.base import Bottleneck
from vq_keras.bottlenecks.codebook import Codebook
from vq_keras.bottlenecks.gumbel_softmax import code_logits
from vq_keras.bottlenecks.saved_seed import SavedSeed
from vq_keras.errors import InputError


@keras.saving.register_keras_serializable(package="vq_keras")
class CategoricalSamples(SavedSeed, Bottleneck):
    """Draws m codes for each latent and scores them: VIMCO with a categorical prior (Mnih and Rezende 2016).

        q(k | x) = softmax(logits)_k,    logits_k = -|z_e - e_k|^2 / sqrt(dim)
        k^1 .. k^m ~ q,    log_probs_j = log q(k^j | x),    log_priors_j = -ln K

    One of the baselines of oord2017 section 4.1. The logits, and why they are divided by the root of `dim`, are those
    of `GumbelSoftmax`. A draw lets no gradient through: the estimator of `vq_keras.vimco` reaches latents and codes by
    `log_probs`, and codes by their "vectors", too. So there is neither a commitment nor a codebook loss; codes start
    as latents of the first batch and follow the gradient. No loss is added: the model's is the bound on log p(x), see
    `ImageAutoencoder`.

    Training and evaluation hold matrices of positions x codes, for log q and its gradient; `encode` does not. A model
    decodes all draws: its decoder's memory and time are those of m times the batch.

    Args:
        num_codes: codes in each codebook, at least 2.
        num_codebooks: independent codebooks, one for each index of the axis before the last.
        num_samples: m, at least 2: the draws are each other's baseline. 50 in oord2017.
        seed: of the draws and of the initialisation.

    Shapes:
        latents (batch, *positions, dim), with `num_codebooks` > 1 (batch, *positions, num_codebooks, dim). `call`
        gives, beside "codes" and "quantized" (the vector of the first draw in training, that of the most likely code
        in evaluation), in both drawn anew: "samples" (batch, *positions, m); "vectors", those of the samples,
        (batch, *positions, m, dim); "log_probs" and "log_priors" float32 (batch, *positions, m): nats, 0 where masked.

    Raises:
        InputError: for an argument outside its range, or latents and a mask that do not fit.

    Example:
        >>> bottleneck = CategoricalSamples(num_codes=256, num_samples=5)
        >>> outputs = bottleneck(keras.random.normal((2, 8, 8, 64)), training=True)
        >>> outputs["vectors"].shape, outputs["log_probs"].shape
        ((2, 8, 8, 5, 64), (2, 8, 8, 5))
    """

    gives_bound = True
    passes_straight_through = False
    outputs_of_call = (*Bottleneck.outputs_of_call, "vectors", "log_probs", "log_priors")

    def __init__(self, num_codes, num_codebooks=1, num_samples=50, seed=None, **kwargs):
        super().__init__(num_codes, num_codebooks, **kwargs)
        if num_samples < 2:
            raise InputError(f"num_samples is {num_samples}; the bound of many samples needs at least 2.")
        self.num_samples = num_samples
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        # It is never told of uses, and so restarts no code: log q gives every code a gradient.
        self.codebook = Codebook(num_codes, num_codebooks, update="gradient", seed=seed, name="codebook")

    def build(self, input_shape):
        super().build(input_shape)
        self.codebook.build(input_shape)

    def call(self, latents, mask=None, training=None):
        outputs = super().call(latents, mask, training)
        flat, *present = self._present(latents, mask)
        samples = ops.reshape(outputs["samples"], (-1, self.num_codebooks, self.num_samples))
        log_q = ops.log_softmax(code_logits(flat, self.codebook.embeddings), axis=-1)
        log_probs = ops.take_along_axis(log_q, ops.maximum(samples, 0), axis=-1)
        vectors = self._placed(assignment.vectors(self.codebook.embeddings, samples), *present, latents)
        log_priors = ops.full_like(log_probs, -math.log(self.num_codes))
        return {
            **outputs,
            "vectors": ops.cast(vectors, self.compute_dtype),
            "log_probs": self._placed(log_probs, *present, latents),
            "log_priors": self._placed(log_priors, *present, latents),
        }

    def compute_output_spec(self, latents, mask=None, training=None):
        drawn = (*latents.shape[:-1], self.num_samples)
        return {
            **super().compute_output_spec(latents),
            "samples": keras.KerasTensor(drawn, dtype="int32"),
            "vectors": keras.KerasTensor((*drawn, latents.shape[-1]), dtype=self.compute_dtype),
            "log_probs": keras.KerasTensor(drawn, dtype="float32"),
            "log_priors": keras.KerasTensor(drawn, dtype="float32"),
        }

    def _assign(self, flat, training):
        embeddings = self.codebook.embeddings
        if not training:
            codes = assignment.nearest(flat, embeddings)
            return codes, codes
        uniforms = keras.random.uniform((*ops.shape(flat)[:2], self.num_samples), seed=self.seed_generator)
        return assignment.drawn(flat, embeddings, uniforms, temperature=math.sqrt(self.dim))

    def _quantize(self, flat, weights, training, num_examples):
        if training and self.trainable:
            self.codebook.initialise(ops.stop_gradient(flat), weights)
        # In evaluation, too: without draws there is no bound.
        samples, codes = self._assign(flat, training=True)
        return self._lookup(samples[..., :1] if training else codes), samples, codes

    def _lookup(self, samples):
        return self.codebook.lookup(samples)

    def get_config(self):
        return {**super().get_config(), "num_samples": self.num_samples, "seed": self.seed}
