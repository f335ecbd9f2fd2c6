"""What bottlenecks without a table share: the vector of a code follows from its id by arithmetic."""

import math

from keras import ops

from vq_keras.bottlenecks.assignment import mean_over_samples
from vq_keras.bottlenecks.base import Bottleneck
from vq_keras.errors import InputError


class GridBottleneck(Bottleneck):
    """A bottleneck whose codes are the points of a fixed grid; each dimension of a latent has its own few levels.

    The id of a point is a number in mixed radix, whose digits say the level in each dimension:

        id = sum_d digit_d places_d,    digit_d = id // places_d mod levels_d

    A subclass gives, beside `_quantize`,

    - `_digits(flat)`: the digits of the nearest point, int32 (n, num_codebooks, latent_dim);
    - `_points(digits)`: the vectors of points, float32 shaped like the digits.

    Args:
        levels: the number of levels of each dimension.
        places: the value of each dimension's digit in an id.
        num_codebooks: as many latents are quantised independently, one for each index of the axis before the last.
    """

    def __init__(self, levels, places, num_codebooks=1, **kwargs):
        num_codes = math.prod(levels)
        if num_codes > 2**31:
            raise InputError(f"{num_codes} codes are more than an int32 can count; give fewer levels or dimensions.")
        super().__init__(num_codes, num_codebooks, **kwargs)
        self.levels = tuple(levels)
        self.places = tuple(places)

    @property
    def latent_dim(self):
        """The dimensions that latents need to have."""
        return len(self.levels)

    def build(self, input_shape):
        check_width(self, input_shape)
        super().build(input_shape)

    def _assign(self, flat, training):
        codes = ops.sum(self._digits(flat) * ops.convert_to_tensor(self.places, "int32"), axis=-1, keepdims=True)
        return codes, codes

    def _lookup(self, samples):
        places, levels = (ops.convert_to_tensor(each, "int32") for each in (self.places, self.levels))
        return mean_over_samples(
            lambda sample: self._points(samples[..., sample, None] // places % levels), samples.shape[-1]
        )


def check_width(bottleneck, input_shape):
    """Raises an InputError where latents do not have the `latent_dim` of a bottleneck that fixes it."""
    if input_shape[-1] != bottleneck.latent_dim:
        name = type(bottleneck).__name__
        raise InputError(
            f"latents have {input_shape[-1]} dimensions, but a {name} of {bottleneck.num_codes} codes needs "
            f"{bottleneck.latent_dim}; wrap it as Projected({name}(...)), which learns maps between the two."
        )
