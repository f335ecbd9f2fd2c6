"""The Gumbel-softmax relaxation of a draw of codes."""

import math

import keras
from keras import ops

from vq_keras.bottlenecks import assignment
from vq_keras.bottlenecks.base import Bottleneck, mean_over_elements, straight_through
from vq_keras.bottlenecks.codebook import Codebook
from vq_keras.bottlenecks.saved_seed import SavedSeed
from vq_keras.errors import InputError

TINY = 2.0**-126  # Above 0, as -log(-log 0) is not finite; compiled programs round what is smaller yet to 0.


@keras.saving.register_keras_serializable(package="vq_keras")
class GumbelSoftmax(SavedSeed, Bottleneck):
    """Mixes code vectors by a softmax with noise, which cools down to a draw of one code (Jang et al. 2017 section 2).

        logits_k = -|z_e - e_k|^2 / sqrt(dim),    q = softmax(logits)
        y = softmax((logits + g) / temperature),  g_k = -log(-log u_k),  u_k uniform in (0, 1)
        z_q = sum_k y_k e_k,                      loss = kl_weight KL(q || uniform) = kl_weight (ln K - H(q))

    (Also Maddison et al. 2017.) The largest y_k is that of code k with probability q_k at any temperature. Latents and
    codes get gradients through y, so neither a commitment nor a codebook loss is needed. In evaluation z_q is the
    vector of the most likely code, the nearest one.

    Training alone holds matrices of positions x codes, as y is one, with a gradient for each element; of the others
    `CategoricalSamples` does. `encode`, `sample` and evaluation compute distances in chunks.

    A baseline of roy2018 section 5.1.1. The code released with it takes the softmax of *plus* the squared distances, by
    which the farthest code is the most likely; here the sign is minus. It also weakens the noise, and moves the codes
    by averages and gradient at once: here the codes start as latents of the first batch and follow the gradient alone.

    The root of `dim` is ours: for latents of variance 1 squared distances to the codes differ by about sqrt(6 dim), and
    no temperature mends that, as it divides the noise, too. With 512 dimensions q would be one code, without gradient.

    Args:
        num_codes: codes in each codebook, at least 2.
        num_codebooks: independent codebooks, one for each index of the axis before the last.
        temperature: a number above 0, or a `keras.optimizers.schedules.LearningRateSchedule` of the training steps so
            far. None falls from 1.2 linearly to 0.2 as in the released code, but in 5,000 steps in place of 150,000:
            a run that ends before them ends with mixtures that evaluation, which takes one code, does not know. That
            code also takes one step in ten at a temperature between 0.5 and 1; this one does not.
        hard: whether z_q is the vector of the code with the largest y already in training, with the gradient of the
            soft z_q for latents and codes (straight-through, Jang et al. section 2.2).
        kl_weight: weight of the loss, in nats for each latent; 1 in the released code, 0.0005 in that of Esser et al.
            2021 (`GumbelQuantize` of taming-transformers). Beside a reconstruction term that is a mean over dimensions
            the evidence bound has codes / dimensions, 0.21 for 640 codes of a CIFAR-10 image. The default, of this
            library alone, is lower: evaluation takes the most likely code, of which a q near uniform says little.
        seed: of the noise and of the initialisation.

    Shapes:
        latents (batch, *positions, dim), with `num_codebooks` > 1 (batch, *positions, num_codebooks, dim); `samples`
        is (batch, *positions, 1): the code with the largest y, in evaluation the most likely one.

    Raises:
        InputError: for an argument outside its range, or latents and a mask that do not fit.

    Example:
        >>> bottleneck = GumbelSoftmax(num_codes=256, hard=True)
        >>> bottleneck(keras.random.normal((2, 8, 8, 64)), training=True)["samples"].shape
        (2, 8, 8, 1)
    """

    passes_straight_through = False

    def __init__(self, num_codes, num_codebooks=1, temperature=None, hard=False, kl_weight=0.01, seed=None, **kwargs):
        super().__init__(num_codes, num_codebooks, **kwargs)
        if temperature is None:
            temperature = keras.optimizers.schedules.PolynomialDecay(1.2, decay_steps=5000, end_learning_rate=0.2)
        self.annealed = callable(temperature)
        if not self.annealed and not temperature > 0:
            raise InputError(f"temperature is {temperature}; give a number above 0, or a schedule of such numbers.")
        if not kl_weight >= 0:
            raise InputError(f"kl_weight is {kl_weight}; give 0 or more.")
        self.temperature = temperature
        self.hard = hard
        self.kl_weight = kl_weight
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        # It is never told of uses, and so restarts no code: y gives every code a gradient.
        self.codebook = Codebook(num_codes, num_codebooks, update="gradient", seed=seed, name="codebook")

    def build(self, input_shape):
        super().build(input_shape)
        self.codebook.build(input_shape)
        self.steps = self.add_weight(dtype="int", trainable=False, aggregation="only_first_replica", name="steps")

    def _assign(self, flat, training):
        if not training:
            codes = assignment.nearest(flat, self.codebook.embeddings)
            return codes, codes
        # The same distribution as that of the largest y, without noise for each code.
        uniforms = keras.random.uniform((*ops.shape(flat)[:2], 1), seed=self.seed_generator)
        return assignment.drawn(flat, self.codebook.embeddings, uniforms, temperature=math.sqrt(self.dim))

    def _quantize(self, flat, weights, training, num_examples):
        moving = bool(training) and self.trainable
        if moving:
            self.codebook.initialise(ops.stop_gradient(flat), weights)
        embeddings = self.codebook.embeddings
        if training:
            logits = code_logits(flat, embeddings)
            divergence, codes = _divergence(logits), _best(logits)
            quantized, samples = self._draw(logits, embeddings)
        else:
            divergence = assignment.by_chunks(
                lambda rows: _divergence(code_logits(rows, embeddings)), [flat], embeddings
            )
            samples, codes = self._assign(flat, training)
            quantized = self._lookup(codes)
        if moving:
            self.steps.assign(self.steps + 1)
        self.add_loss(self.kl_weight * mean_over_elements(divergence, weights))
        return quantized, samples, codes

    def _draw(self, logits, embeddings):
        """z_q with its gradient, and the code with the largest y."""
        uniforms = keras.random.uniform(ops.shape(logits), minval=TINY, dtype="float32", seed=self.seed_generator)
        noisy = logits - ops.log(-ops.log(uniforms))
        temperature = self.temperature(ops.convert_to_tensor(self.steps)) if self.annealed else self.temperature
        mixture = ops.einsum("ngk,gkd->ngd", ops.softmax(noisy / temperature), embeddings)
        samples = _best(noisy)
        return straight_through(mixture, self._lookup(samples)) if self.hard else mixture, samples

    def _lookup(self, samples):
        return self.codebook.lookup(samples)

    def get_config(self):
        config = {name: getattr(self, name) for name in ("temperature", "hard", "kl_weight", "seed")}
        return {**super().get_config(), **keras.saving.serialize_keras_object(config)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "temperature": keras.saving.deserialize_keras_object(config["temperature"])})


def code_logits(latents, embeddings):
    """-|x - e|^2 / sqrt(dim) up to a number for each latent, with gradients; centred as in `assignment.nearest`.

    Args:
        latents: float32 (n, num_codebooks, dim).
        embeddings: float32 (num_codebooks, num_codes, dim).

    Returns:
        float32 (n, num_codebooks, num_codes).
    """
    centre = ops.stop_gradient(ops.mean(embeddings, axis=1))
    latents, embeddings = latents - centre, embeddings - centre[:, None]
    products = ops.einsum("ngd,gkd->ngk", latents, embeddings)
    return (2.0 * products - ops.sum(ops.square(embeddings), axis=-1)) / math.sqrt(latents.shape[-1])


def _divergence(logits):
    """KL(softmax(logits) || uniform) in nats, (..., num_codes) -> (...)."""
    return ops.sum(ops.softmax(logits) * ops.log_softmax(logits), axis=-1) + math.log(logits.shape[-1])


def _best(scores):
    return ops.cast(ops.top_k(scores, 1)[1], "int32")
