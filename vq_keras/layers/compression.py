"""Convolutions that make one latent of 2^n positions, and positions of latents again."""

import keras
from keras import ops

from vq_keras.errors import InputError
from vq_keras.layers.masks import first


class _ConvolutionUnit(keras.layers.Layer):
    """ReLU -> convolution without bias -> layer norm; zero where masked, as padding at the ends of a sequence is."""

    def __init__(self, filters, kernel_size, strides=1, padding="same", activation="relu", **kwargs):
        super().__init__(**kwargs)
        policy = self.dtype_policy
        self.activation = keras.activations.get(activation)
        self.convolution = keras.layers.Conv1D(
            filters, kernel_size, strides, padding, use_bias=False, dtype=policy, name="convolution"
        )
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6, dtype=policy, name="norm")

    def build(self, input_shape):
        self.convolution.build(input_shape)
        self.norm.build((*input_shape[:-1], self.convolution.filters))

    def call(self, x, mask):
        x = self.norm(self.convolution(self.activation(x)))
        return x * ops.cast(mask, x.dtype)[..., None]


class _ResidualConvolutions(keras.layers.Layer):
    """x + dropout(three convolution units of width 3 on norm(x))."""

    def __init__(self, dropout, **kwargs):
        super().__init__(**kwargs)
        self.residual_dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="residual_dropout")
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6, dtype=self.dtype_policy, name="norm")

    def build(self, input_shape):
        self.units = [_ConvolutionUnit(input_shape[-1], 3, dtype=self.dtype_policy, name=f"unit_{i}") for i in range(3)]
        for layer in (self.norm, *self.units):
            layer.build(input_shape)

    def call(self, x, mask, training=None):
        y = self.norm(x) * ops.cast(mask, x.dtype)[..., None]
        for unit in self.units:
            y = unit(y, mask)
        return x + self.residual_dropout(y, training=training)


class _Convolutions(keras.layers.Layer):
    """What compression and decompression share: their arguments."""

    def __init__(self, num_steps: int, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        if num_steps < 1:
            raise InputError(f"num_steps is {num_steps}; give at least 1: each halves the number of latents.")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout is {dropout}; give a number from 0 up to, not including, 1.")
        self.num_steps = num_steps
        self.dropout = dropout
        self.supports_masking = True

    def _residual(self, number):
        return [
            _ResidualConvolutions(self.dropout, dtype=self.dtype_policy, name=f"residual_{i}") for i in range(number)
        ]

    def get_config(self):
        return {**super().get_config(), "num_steps": self.num_steps, "dropout": self.dropout}


@keras.saving.register_keras_serializable(package="vq_keras")
class Compressor(_Convolutions):
    """One latent for each 2^n positions: residual convolutions, then n convolutions of width and stride 2.

    As the code released with roy2018 does (section 3.1 of the paper leaves it open), but for padding, which stays zero
    through all convolutions here: a sentence has the same latents alone and in a batch of longer ones. As the last
    thing is a layer norm, latents have a length of about the root of their dimension.

    Args:
        num_steps: n, the halvings; as many residual parts come before them.
        dropout: on the output of each residual part.

    Shapes:
        input (batch, m, dim), m a multiple of 2^n; num_latents int32 (batch,), how many latents of each sequence are
        not padding. Output (batch, m / 2^n, dim), zero in the others.

    Raises:
        InputError: an argument is out of range, or m is known and no multiple of 2^n.

    Example:
        >>> compressor = Compressor(num_steps=3)
        >>> compressor(keras.random.normal((2, 16, 32)), ops.array([2, 1])).shape
        (2, 2, 32)
    """

    def build(self, input_shape, *_):
        length, dim = input_shape[1:]
        if length is not None and length % 2**self.num_steps:
            raise InputError(f"{length} positions are no multiple of {2**self.num_steps}, the positions of a latent.")
        policy = self.dtype_policy
        self.residual = self._residual(self.num_steps)
        self.halve = [
            _ConvolutionUnit(dim, 2, 2, "valid", dtype=policy, name=f"halve_{i}") for i in range(self.num_steps)
        ]
        for layer in (*self.residual, *self.halve):
            layer.build(input_shape)

    def call(self, x, num_latents, training=None):
        mask = first(num_latents * 2**self.num_steps, x)
        x = x * ops.cast(mask, x.dtype)[..., None]
        for residual in self.residual:
            x = residual(x, mask, training=training)
        for step, halve in enumerate(self.halve):
            x = halve(x, first(num_latents * 2 ** (self.num_steps - 1 - step), x[:, ::2]))
        return x

    def compute_output_spec(self, x, num_latents, training=None):
        length = None if x.shape[1] is None else x.shape[1] // 2**self.num_steps
        return keras.KerasTensor((x.shape[0], length, x.shape[2]), dtype=self.compute_dtype)


@keras.saving.register_keras_serializable(package="vq_keras")
class Decompressor(_Convolutions):
    """2^n positions of each latent: n times a residual part and a convolution of width 1 that makes two of each.

    As the code released with roy2018 does; masked as `Compressor`.

    Args:
        num_steps: n, the doublings.
        dropout: on the output of each residual part.

    Shapes:
        input (batch, m, dim); num_latents int32 (batch,), how many of each sequence are not padding. Output
        (batch, 2^n m, dim), zero where they are.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> decompressor = Decompressor(num_steps=3)
        >>> decompressor(keras.random.normal((2, 2, 32)), ops.array([2, 1])).shape
        (2, 16, 32)
    """

    def build(self, input_shape, *_):
        policy = self.dtype_policy
        self.residual = self._residual(self.num_steps)
        self.double = [
            # The released code has no ReLU in front of the first: half of each code vector would never be seen.
            _ConvolutionUnit(
                2 * input_shape[-1], 1, activation="relu" if i else "linear", dtype=policy, name=f"double_{i}"
            )
            for i in range(self.num_steps)
        ]
        for layer in (*self.residual, *self.double):
            layer.build(input_shape)

    def call(self, x, num_latents, training=None):
        dim, lengths = x.shape[-1], num_latents
        for residual, double in zip(self.residual, self.double, strict=True):
            mask = first(lengths, x)
            x = residual(x * ops.cast(mask, x.dtype)[..., None], mask, training=training)
            x = ops.reshape(double(x, mask), (-1, 2 * ops.shape(x)[1], dim))
            lengths = 2 * lengths
        return x

    def compute_output_spec(self, x, num_latents, training=None):
        length = None if x.shape[1] is None else x.shape[1] * 2**self.num_steps
        return keras.KerasTensor((x.shape[0], length, x.shape[2]), dtype=self.compute_dtype)
