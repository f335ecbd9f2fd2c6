"""Where a position is, as sines and cosines of many frequencies."""

import math

import keras
import numpy as np
from keras import ops

from vq_keras.errors import InputError

LONGEST = 1e4


@keras.saving.register_keras_serializable(package="vq_keras")
class SinusoidalPositions(keras.layers.Layer):
    """Adds sin(t w_0) ... sin(t w_{h-1}), then cos(t w_0) ... cos(t w_{h-1}), to the 2 h units at position t.

    The frequencies w_i = 10^(-4 i / (h - 1)) fall geometrically from 1 to 10^-4. There is no table of them for each
    position, so there is no longest sequence.

    Source: Vaswani et al. 2017, section 3.5, in the form of the authors' released code, where sines and cosines stand
    one after the other instead of in turn, and the lowest frequency is 10^-4 exactly.

    Shapes:
        input and output (batch, n, d), d = 2 h.

    Raises:
        InputError: d is odd.

    Example:
        >>> positions = SinusoidalPositions()
        >>> positions(ops.zeros((1, 3, 4)))[0, 2]  # [sin 2, sin 0.0002, cos 2, cos 0.0002]
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape):
        dim = input_shape[-1]
        if dim % 2:
            raise InputError(f"sinusoidal positions need an even dimension, half sines and half cosines, not {dim}.")
        steps = np.arange(dim // 2) / max(1, dim // 2 - 1)
        self._frequencies = np.exp(-math.log(LONGEST) * steps).astype("float32")

    def call(self, x):
        return x + self._vectors(ops.arange(ops.shape(x)[1], dtype="int32"))

    def step(self, x, position):
        """The output (batch, d) at one position, an int or an int32 scalar tensor, for the input (batch, d)."""
        return x + self._vectors(position)

    def _vectors(self, positions):
        """(..., d) for positions (...); float32 until the end, as low precision does not even count to 300."""
        angles = ops.expand_dims(ops.cast(positions, "float32"), -1) * self._frequencies
        return ops.cast(ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1), self.compute_dtype)
