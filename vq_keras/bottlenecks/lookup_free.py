"""Lookup-free quantisation: a code is the signs of its latent."""

import math

import keras
from keras import ops

from vq_keras.bottlenecks import replicas
from vq_keras.bottlenecks.base import mean_over_elements, straight_through
from vq_keras.bottlenecks.grid import GridBottleneck
from vq_keras.bottlenecks.sphere import l2_normalize
from vq_keras.errors import InputError


@keras.saving.register_keras_serializable(package="vq_keras")
class LookupFreeQuantizer(GridBottleneck):
    """Replaces each dimension of a latent by its sign (LFQ, Yu et al. 2023, "Language model beats diffusion", 3.1).

        z_q = c sign(z_e),    c = 1,    code = sum_d [z_e,d > 0] 2^(D-1-d),  d = 0 .. D-1
        loss = commitment_weight |z_e - sg(z_q)|^2
             + entropy_weight (E[H(p(.|z_e))] - diversity_weight H(E[p(.|z_e)])),
        p(k|z) proportional to exp(-|z - c_k|^2 / temperature)

    The sign of the first dimension is the most significant bit of the code. The first entropy is low where every
    latent is sure of its code, the second, of the mean over latents, is high where all codes are used. Both are exact
    over all codes, and cheap: see `entropies`.

    With `spherical` the latents are normalised to unit length first and c = 1 / sqrt(D), so that the codes are on the
    unit sphere, too (BSQ, Zhao et al. 2024).

    Args:
        num_codes: 2^D, a power of two.
        num_codebooks: as many latents are quantised independently, one for each index of the axis before the last.
        spherical: whether latents and codes are on the unit sphere.
        entropy_weight: of both entropies, in nats; 0 for none. The authors take 0.1, as here, for 2^10 to 2^40 codes,
            and let it change in training where there are many (vector-quantize-pytorch, issue 88).
        diversity_weight: of the entropy of the mean, relative to the other.
        temperature: of p, above 0. At 1 a latent of 1 or -1 in some dimension is 98 % sure of that bit, and still feels
            the entropies; at a small temperature, such as the authors' 0.01, only latents close to a change of sign do
            (vector-quantize-pytorch, pull request 98, where a user did better with 0.1 and 1).
        commitment_weight: of the mean over all elements of |z_e - sg(z_q)|^2; 0.25 for the authors, too.

    Shapes:
        latents (batch, *positions, D), with `num_codebooks` > 1 (batch, *positions, num_codebooks, D); see
        `Bottleneck` for what is returned. Latents of another width: `Projected`.

    Raises:
        InputError: for an argument outside its range, or latents of another width.

    Example:
        >>> quantizer = LookupFreeQuantizer(num_codes=1024)
        >>> quantizer(keras.random.normal((2, 8, 8, quantizer.latent_dim)))["codes"].shape
        (2, 8, 8)
    """

    def __init__(
        self,
        num_codes,
        num_codebooks=1,
        spherical=False,
        entropy_weight=0.1,
        diversity_weight=1.0,
        temperature=1.0,
        commitment_weight=0.25,
        **kwargs,
    ):
        bits = int(num_codes).bit_length() - 1
        if num_codes < 2 or num_codes != 2**bits:
            raise InputError(f"num_codes is {num_codes}; a LookupFreeQuantizer needs a power of two, at least 2.")
        super().__init__([2] * bits, [2**bit for bit in reversed(range(bits))], num_codebooks, **kwargs)
        self.spherical = spherical
        self.entropy_weight = entropy_weight
        self.diversity_weight = diversity_weight
        self.temperature = temperature
        self.commitment_weight = commitment_weight
        for name in ("entropy_weight", "diversity_weight", "commitment_weight"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} is {getattr(self, name)}; give 0 or more.")
        if not temperature > 0:
            raise InputError(f"temperature is {temperature}; give a number above 0.")

    @property
    def passes_straight_through(self):
        return not self.spherical

    @property
    def scale(self):
        """c: the absolute value of every element of every code."""
        return 1 / math.sqrt(self.latent_dim) if self.spherical else 1.0

    def _digits(self, flat):
        return ops.cast(flat > 0, "int32")

    def _points(self, digits):
        return ops.where(digits > 0, self.scale, -self.scale)

    def _quantize(self, flat, weights, training, num_examples):
        samples, codes = self._assign(flat, training)
        vectors = self._lookup(samples)
        if self.spherical:
            flat = l2_normalize(flat)
        commitment = mean_over_elements(ops.square(flat - vectors), weights)
        if self.entropy_weight > 0:
            # (x + c)^2 - (x - c)^2 = 4 c x is all that the distances to the two signs of a bit differ by.
            of_each, of_mean = entropies(4 * self.scale / self.temperature * flat, weights)
            # No loss is added before the sum over replicas in there: it lets the next replica begin its step, and
            # Keras then forgets the losses that this one has added.
            self.add_loss(self.entropy_weight * (of_each - self.diversity_weight * of_mean))
        self.add_loss(self.commitment_weight * commitment)
        return straight_through(flat, vectors), samples, codes

    def get_config(self):
        names = ("spherical", "entropy_weight", "diversity_weight", "temperature", "commitment_weight")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def entropies(logits, weights):
    """The mean entropy and the entropy of the mean of distributions over 2^bits codes, each a product over its bits.

    A product's entropy is the sum of those of its bits. Its mean over n latents, a table of the first half of the bits
    by the second, is the matrix product A'B of the n x 2^(bits/2) probabilities of either half: no tensor of
    n x 2^bits elements is needed, and nothing is approximated.

    Args:
        logits: float32 (n, num_codebooks, bits), log p(bit = 1) - log p(bit = 0).
        weights: float32 (n,): 1 for latents that count, 0 for masked ones.

    Returns:
        Two scalars, in nats, means over the codebooks. The second is of the mean over all replicas.
    """
    # Beyond, entropies and their gradients are below 1e-32 and count as zero; an infinite logit would make 0 x inf.
    logits = ops.clip(logits, -80.0, 80.0)
    _, num_codebooks, bits = logits.shape
    ones, zeros = ops.sigmoid(logits), ops.sigmoid(-logits)
    of_bits = -(ones * ops.log_sigmoid(logits) + zeros * ops.log_sigmoid(-logits))

    def products(start, chosen):
        """The probability of each choice of the bits `chosen`, times `start`: (n, num_codebooks, 2^len(chosen))."""
        table = start
        for bit in chosen:
            pair = ops.stack([zeros[..., bit], ones[..., bit]], axis=-1)
            table = ops.reshape(table[..., :, None] * pair[..., None, :], (-1, num_codebooks, 2 * table.shape[-1]))
        return table

    nothing = ops.ones_like(logits[..., :1])
    first = products(nothing * weights[:, None, None], range(bits // 2))
    second = products(nothing, range(bits // 2, bits))
    total, number = replicas.all_reduce_sum(ops.einsum("ngi,ngj->gij", first, second), ops.sum(weights))
    mean = total / ops.maximum(number, 1.0)
    # The least normal number keeps the logarithm and its gradient finite where no latent chose a code.
    of_mean = -ops.sum(mean * ops.log(ops.maximum(mean, 1.2e-38))) / num_codebooks
    return mean_over_elements(ops.sum(of_bits, axis=-1), weights), of_mean
