"""Residual finite scalar quantisation: the digits of a bounded latent, coarse to fine."""

import keras
from keras import ops

from vq_keras.bottlenecks import finite_scalar
from vq_keras.bottlenecks.base import straight_through
from vq_keras.bottlenecks.grid import GridBottleneck, check_width
from vq_keras.bottlenecks.residual import ResidualQuantizer
from vq_keras.errors import InputError

# Cells of one dimension: float32 tells hardly more numbers apart between -1 and 1.
MOST_CELLS = 2**22


@keras.saving.register_keras_serializable(package="vq_keras")
class ResidualFiniteScalarQuantizer(ResidualQuantizer):
    """Rounds each dimension of a latent to a few levels, and what is left over to as many finer ones, and so on.

        b = c tanh(z_e / c),    c_d = L_d / (L_d - 1)
        z_q = sum_i q_i,    q_i,d = (2 k_i,d / (L_d - 1) - 1) / L_d^(i-1),    k_i,d in 0 .. L_d - 1

    where stage i takes the q_i nearest to b - q_1 - ... - q_{i-1}, and its code counts the k_i,d of the first dimension
    least. (As `ResidualFSQ` of vector-quantize-pytorch, after Mentzer et al. 2023 and Zeghidour et al. 2021.)

    The L levels of the first stage lie evenly between -1 and 1, and (-c, c) is cut into their cells, all of one width.
    A cell is L times narrower than (-c, c), and so the next stage finds in it the whole of its own, smaller range. The
    k_i are the digits of (b / c + 1) / 2 in base L, and i stages are one grid of L^i levels.

    The bound, of slope 1 at zero, stands once before all stages, and the gradient passes it once. A `ResidualQuantizer`
    of `FiniteScalarQuantizer`s would have one before each stage, and levels so far apart that all but the first rounded
    what is left over to zero. There is no codebook, no state but that of the dropout, and no loss. Unlike those of
    `FiniteScalarQuantizer`, the levels are symmetric for even L, too: then none of them is zero.

    Args:
        levels: L_d of each dimension, at least 2 each, the same in all stages.
        num_codes: in place of `levels`, for each stage, as in `FiniteScalarQuantizer`.
        num_stages: at least 1.
        dropout: as in `ResidualQuantizer`.
        seed: of the dropout.

    Shapes:
        latents (batch, *positions, len(levels)); codes (batch, *positions, stages), samples (batch, *positions, stages,
        1). Latents of another width: `Projected`.

    Raises:
        InputError: for an argument outside its range, so many levels and stages that float32 cannot tell them apart,
            or latents of another width.

    Example:
        >>> quantizer = ResidualFiniteScalarQuantizer(levels=(8, 5, 5, 5), num_stages=3)
        >>> quantizer.num_codes, quantizer.num_codebooks
        (1000, 3)
        >>> quantizer(keras.random.normal((2, 50, 4)))["codes"].shape
        (2, 50, 3)
    """

    passes_straight_through = False  # The bound stands before the rounding.

    def __init__(self, levels=None, num_codes=None, num_stages=2, dropout=0.0, seed=None, **kwargs):
        levels = finite_scalar.resolve(levels, num_codes, type(self).__name__)
        if num_stages < 1:
            raise InputError(f"num_stages is {num_stages}; give 1 or more.")
        if max(levels) ** num_stages > MOST_CELLS:
            raise InputError(
                f"{num_stages} stages of {max(levels)} levels are more than the {MOST_CELLS} that float32 tells apart; "
                "take fewer stages or levels."
            )
        super().__init__([FiniteScalarStage(levels, stage) for stage in range(num_stages)], dropout, seed, **kwargs)
        self.levels = levels

    @property
    def latent_dim(self):
        """The dimensions that latents need to have."""
        return len(self.levels)

    def build(self, input_shape):
        check_width(self, input_shape)
        super().build(input_shape)

    def _comparable(self, latents):
        widths = ops.convert_to_tensor([level / (level - 1) for level in self.levels], "float32")
        # An infinite latent is none, although its bound is a number.
        return ops.where(ops.isfinite(latents), ops.tanh(latents / widths) * widths, float("nan"))

    def get_config(self):
        config = {**super().get_config(), "levels": list(self.levels), "num_stages": len(self.stages)}
        del config["stages"]
        return config

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class FiniteScalarStage(GridBottleneck):
    """The nearest q_i, with the gradient straight through: there is no bound, and outside is the outermost level.

    Args:
        levels: L_d of each dimension.
        stage: i - 1.
    """

    def __init__(self, levels, stage, **kwargs):
        super().__init__(levels, finite_scalar.places(levels), **kwargs)
        self.stage = stage

    def _digits(self, flat):
        levels = ops.convert_to_tensor(self.levels, "float32")
        digits = ops.floor((flat * levels**self.stage + 1.0) * (levels - 1.0) / 2.0 + 0.5)
        return ops.cast(ops.clip(digits, 0.0, levels - 1.0), "int32")

    def _points(self, digits):
        levels = ops.convert_to_tensor(self.levels, "float32")
        return (2.0 * ops.cast(digits, "float32") / (levels - 1.0) - 1.0) / levels**self.stage

    def _quantize(self, flat, weights, training, num_examples):
        samples, codes = self._assign(flat, training)
        return straight_through(flat, self._lookup(samples)), samples, codes
