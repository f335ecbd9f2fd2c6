"""Continuous distributions over grey levels, gathered into the mass of 256 bins.

Levels 0..255 are scaled to x = level / 127.5 - 1 in [-1, 1], so that a bin is 2 / 255 wide. The outermost two bins
reach to infinity: the masses sum to one. They stay finite, in value and gradient, however far in a tail a bin is.
"""

import math

from keras import ops

HALF_BIN = 1.0 / 255.0


def scaled(levels):
    """Grey levels 0..255 -> [-1, 1]."""
    return ops.cast(levels, "float32") / 127.5 - 1.0


def nearest_level(x):
    """[-1, 1] -> the nearest grey level, int32; values beyond the range give 0 or 255."""
    # Clipped first: casting a number beyond int32 is undefined.
    return ops.cast(ops.round(ops.clip((x + 1.0) * 127.5, 0.0, 255.0)), "int32")


def _at_edges(levels, lowest, inner, highest):
    return ops.where(levels == 0, lowest, ops.where(levels == 255, highest, inner))


def logistic(levels, centred, log_scales):
    """log of the logistic mass in the bin of each level.

    Args:
        levels: int32, 0..255.
        centred: float32, scaled level less the location of the distribution.
        log_scales: float32, log of its scale in units of the range [-1, 1]; the shapes broadcast.

    Returns:
        float32, in nats.
    """
    inverse = ops.exp(-log_scales)
    above, below = inverse * (centred + HALF_BIN), inverse * (centred - HALF_BIN)
    # With s the logistic function, s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)) holds exactly, and each factor keeps
    # its precision however far the bin is in a tail.
    left_of, right_of = ops.log_sigmoid(above), ops.log_sigmoid(-below)
    inner = left_of + right_of + ops.log(-ops.expm1(-2.0 * HALF_BIN * inverse))
    return _at_edges(levels, left_of, inner, right_of)


def normal(levels, centred, log_scales):
    """log of the normal mass in the bin of each level; arguments as for `logistic`."""
    inverse = ops.exp(-log_scales)
    z, half_width = inverse * centred, inverse * HALF_BIN
    # Mirrored to the left of the mean, where Phi keeps its relative precision.
    distance = ops.abs(z)
    upper, lower = _log_phi(half_width - distance), _log_phi(-half_width - distance)
    # The floor is below every difference that the first branch is used for, up to rounding very far out.
    by_tails = upper + ops.log(-ops.expm1(-ops.maximum(upper - lower, 1e-6)))
    # Bins this narrow lose the difference of the tails in rounding; density times width errs by z^2 / 240,000 there.
    by_density = -0.5 * ops.square(z) - 0.5 * math.log(2.0 * math.pi) + math.log(2.0 * HALF_BIN) - log_scales
    inner = ops.where(half_width > 0.005, by_tails, by_density)
    return _at_edges(levels, _log_phi(z + half_width), inner, _log_phi(half_width - z))


def _log_phi(x):
    """log of the normal distribution function; 1e-6 accurate at any depth of the tail."""
    # erfc underflows float32 below -13; from -10 on three terms of its asymptotic series are as good as float32.
    near = ops.log(0.5 * ops.erfc(ops.maximum(x, -10.0) * -math.sqrt(0.5)))
    far = ops.minimum(x, -10.0)
    inverse_square = 1.0 / ops.square(far)
    series = ops.log1p(-inverse_square * (1.0 - 3.0 * inverse_square))
    tail = -0.5 * ops.square(far) - ops.log(-far) - 0.5 * math.log(2.0 * math.pi) + series
    return ops.where(x > -10.0, near, tail)
