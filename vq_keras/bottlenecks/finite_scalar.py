"""Finite scalar quantisation."""

import math

import keras
from keras import ops

from vq_keras.bottlenecks.base import straight_through
from vq_keras.bottlenecks.grid import GridBottleneck
from vq_keras.errors import InputError

# Mentzer et al. 2023, table 1: the levels for about as many codes.
RECOMMENDED = {
    256: (8, 6, 5),
    1024: (8, 5, 5, 5),
    4096: (7, 5, 5, 5, 5),
    16384: (8, 8, 8, 6, 5),
    65536: (8, 8, 8, 5, 5, 5),
}


@keras.saving.register_keras_serializable(package="vq_keras")
class FiniteScalarQuantizer(GridBottleneck):
    """Rounds each dimension of a latent to one of a few levels (FSQ, Mentzer et al. 2023, section 3.1 and appendix A).

        b_d = tanh(z_d + tan(o_d / h_d)) h_d - o_d,    h_d = (L_d - 1) / 2,  o_d = 1/2 for even L_d and 0 for odd
        z_q = round(b) / (L // 2),    code = sum_d (round(b_d) + L_d // 2) L_1 .. L_{d-1}

    There is no codebook that could collapse, no state and no loss; the gradient passes the rounding unchanged. The
    code of the first dimension has the least weight. A latent of zero lands on the level 0 of every dimension; for an
    even number of levels that is one above the middle, so that the levels reach from -1 to 1 - 1 / (L / 2).

    The paper's code shrinks h by a thousandth. That moves no id but at the very edges of a level, and puts the outer
    ones out of reach where there are more than a thousand levels, so it is left out.

    Args:
        levels: L_d, the number of levels of each dimension, at least 2 each; the paper advises 5 or more. Its length
            is `latent_dim`, its product `num_codes`.
        num_codes: in place of `levels`: 256, 1024, 4096, 16384 or 65536, for the paper's levels for about as many
            codes. The attribute `num_codes` is their product, such as 240 for 256.
        num_codebooks: as many latents are quantised independently, one for each index of the axis before the last.

    Shapes:
        latents (batch, *positions, len(levels)), with `num_codebooks` > 1 (batch, *positions, num_codebooks,
        len(levels)); see `Bottleneck` for what is returned. Latents of another width: `Projected`.

    Raises:
        InputError: for levels or a number of codes outside these, for both or none of them, or latents of another
            width.

    Example:
        >>> quantizer = FiniteScalarQuantizer(levels=(8, 5, 5, 5))
        >>> quantizer.num_codes
        1000
        >>> quantizer(keras.random.normal((2, 8, 8, 4)))["codes"].shape
        (2, 8, 8)
    """

    passes_straight_through = False  # The bound stands before the rounding.

    def __init__(self, levels=None, num_codes=None, num_codebooks=1, **kwargs):
        levels = resolve(levels, num_codes, type(self).__name__)
        super().__init__(levels, places(levels), num_codebooks, **kwargs)

    def _half_widths(self):
        return ops.convert_to_tensor([level // 2 for level in self.levels], "float32")

    def _bounded(self, flat):
        """b: between -(L // 2) and (L - 1) // 2, to be rounded."""
        halves = [(level - 1) / 2 for level in self.levels]
        offsets = [0.0 if level % 2 else 0.5 for level in self.levels]
        shifts = [math.tan(offset / half) for offset, half in zip(offsets, halves, strict=True)]
        halves, offsets, shifts = (ops.convert_to_tensor(each, "float32") for each in (halves, offsets, shifts))
        return ops.tanh(flat + shifts) * halves - offsets

    def _digits(self, flat):
        return ops.cast(ops.round(self._bounded(flat)) + self._half_widths(), "int32")

    def _points(self, digits):
        half_widths = self._half_widths()
        return (ops.cast(digits, "float32") - half_widths) / half_widths

    def _quantize(self, flat, weights, training, num_examples):
        samples, codes = self._assign(flat, training)
        return straight_through(self._bounded(flat) / self._half_widths(), self._lookup(samples)), samples, codes

    def get_config(self):
        config = {**super().get_config(), "levels": list(self.levels)}
        del config["num_codes"]
        return config


def resolve(levels, num_codes, name):
    """The levels that either argument of a quantiser of this name stands for, a tuple of whole numbers.

    Raises:
        InputError: for both or neither, or one outside its range.
    """
    if (levels is None) == (num_codes is None):
        raise InputError(f"give a {name} either levels or num_codes.")
    if levels is None:
        if num_codes not in RECOMMENDED:
            known = ", ".join(map(str, RECOMMENDED))
            raise InputError(f"there are no recommended levels for {num_codes} codes, only for {known}; give levels.")
        levels = RECOMMENDED[num_codes]
    if not levels or any(level < 2 or level != int(level) for level in levels):
        raise InputError(f"levels are {tuple(levels)}; give at least one whole number, each 2 or more.")
    return tuple(int(level) for level in levels)


def places(levels):
    """The value of each dimension's digit in an id: the first dimension has the least."""
    return [math.prod(levels[:dimension]) for dimension in range(len(levels))]
