"""The two convolutions of a gated PixelCNN: over the rows above, and over what stands to the left."""

import keras
from keras import ops

from vq_keras.errors import InputError


class GatedConvolution(keras.layers.Layer):
    """What both share: y = tanh(a) * sigmoid(b), where [a, b] = W * x + V s for a condition s.

    W * x is the convolution, whose form a subclass gives; V s a matrix product at each position (van den Oord et al.
    2016b, "Conditional Image Generation with PixelCNN Decoders", equations 2, 4 and 5).
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.project_condition = None

    def _build_gate(self, dim, kernel_size, scale, condition_shape):
        self.convolution = keras.layers.Conv2D(
            2 * dim,
            kernel_size,
            use_bias=condition_shape is None,
            kernel_initializer=keras.initializers.VarianceScaling(scale, "fan_in"),
            dtype=self.dtype_policy,
            name="convolution",
        )
        self.convolution.build((None, None, None, dim))
        if condition_shape is not None:
            # The bias stands here: TensorFlow 2.20 tries to fuse one into the sum and prints an error when it cannot.
            self.project_condition = keras.layers.Dense(2 * dim, dtype=self.dtype_policy, name="project_condition")
            self.project_condition.build(condition_shape)

    def _before_gate(self, padded, condition):
        """[a, b], wherever the kernel fits into `padded`."""
        features = self.convolution(padded)
        return features if condition is None else features + self.project_condition(condition)

    def _gate(self, features):
        a, b = ops.split(features, 2, axis=-1)
        return ops.tanh(a) * ops.sigmoid(b)


@keras.saving.register_keras_serializable(package="vq_keras")
class VerticalConvolution(GatedConvolution):
    """A layer of the vertical stack: row i of the output sees rows i - n // 2 ... i of the input.

    With an input that is shifted down by one row, each output therefore depends on rows above its own alone, and n // 2
    columns further to both sides in each layer: their whole width. No weight is masked; zeros stand beyond the borders.

    Besides the gated output there are the features before the gate, which feed the horizontal stack. A condition is
    part of them: it reaches the gates of both stacks with one projection (the paper has one for each, but a 1x1
    convolution lies between the two, so that these are the same functions).

    Args:
        kernel_size: n, odd and at least 3.

    Shapes:
        input x (batch, rows, columns, dim); condition None or (batch, rows or 1, columns or 1, any dimension), such as
        a class, or a field of the same positions. Output: gated (batch, rows, columns, dim) and features (batch, rows,
        columns, 2 dim).

    Raises:
        InputError: kernel_size is not odd, or below 3.

    Example:
        >>> layer = VerticalConvolution(kernel_size=3)
        >>> gated, features = layer(keras.random.normal((2, 8, 8, 16)), keras.random.normal((2, 1, 1, 10)))
        >>> gated.shape, features.shape
        ((2, 8, 8, 16), (2, 8, 8, 32))
    """

    def __init__(self, kernel_size: int, **kwargs):
        super().__init__(**kwargs)
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise InputError(f"kernel_size is {kernel_size}; give an odd number of at least 3.")
        self.kernel_size = kernel_size

    def build(self, x_shape, condition_shape=None):
        self.dim = x_shape[-1]
        # tanh(a) sigmoid(b) is a / 2 where both are small: with a scale below 4 what comes from far above fades from
        # layer to layer, as this stack has no residual connections.
        self._build_gate(self.dim, (self.kernel_size // 2 + 1, self.kernel_size), 4.0, condition_shape)

    def call(self, x, condition=None):
        return self._rows(ops.pad(x, [[0, 0], [self.kernel_size // 2, 0], [0, 0], [0, 0]]), condition)

    def init_cache(self, batch_size, columns: int):
        """The empty cache of `step`: the n // 2 rows of the input above the first, (batch, n // 2, columns, dim)."""
        return ops.zeros((batch_size, self.kernel_size // 2, columns, self.dim), dtype=self.compute_dtype)

    def step(self, x, cache, condition=None) -> tuple:
        """The outputs of one row, given the rows above it; rows go through this in order.

        Args:
            x: (batch, columns, dim), the row of the input.
            cache: what `init_cache`, or the step before, returned.
            condition: as in `call`, for this row.

        Returns:
            gated (batch, columns, dim) and features (batch, columns, 2 dim), equal to `call` in this row, and the new
            cache.
        """
        rows = ops.concatenate([cache, x[:, None]], axis=1)
        gated, features = self._rows(rows, condition)
        return gated[:, 0], features[:, 0], rows[:, 1:]

    def _rows(self, x, condition):
        side = self.kernel_size // 2
        features = self._before_gate(ops.pad(x, [[0, 0], [0, 0], [side, side], [0, 0]]), condition)
        return self._gate(features), features

    def get_config(self):
        return {**super().get_config(), "kernel_size": self.kernel_size}


@keras.saving.register_keras_serializable(package="vq_keras")
class HorizontalConvolution(GatedConvolution):
    """A layer of the horizontal stack: x + W_o y, where y at column j sees columns j - n + 1 ... j of the same row.

    With an input that is shifted right by one column, each output depends on what stands to its left alone. The
    condition is what the vertical stack has before its gate.

    Args:
        kernel_size: n, at least 2, the own column among them.
        dropout: share of the units of the residual branch that are dropped in training.

    Shapes:
        input x (batch, rows, columns, dim); condition None or (batch, rows or 1, columns or 1, any dimension). Output:
        (batch, rows, columns, dim).

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> layer = HorizontalConvolution(kernel_size=2)
        >>> layer(keras.random.normal((2, 8, 8, 16)), keras.random.normal((2, 8, 8, 32))).shape
        (2, 8, 8, 16)
    """

    def __init__(self, kernel_size: int, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        if kernel_size < 2:
            raise InputError(f"kernel_size is {kernel_size}; give at least 2.")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout is {dropout}; give a number from 0 up to, not including, 1.")
        self.kernel_size = kernel_size
        self.dropout = dropout
        self.residual_dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="residual_dropout")

    def build(self, x_shape, condition_shape=None):
        self.dim = x_shape[-1]
        self._build_gate(self.dim, (1, self.kernel_size), 1.0, condition_shape)
        self.project_out = keras.layers.Dense(self.dim, dtype=self.dtype_policy, name="project_out")
        self.project_out.build(x_shape)

    def call(self, x, condition=None, training=None):
        padded = ops.pad(x, [[0, 0], [0, 0], [self.kernel_size - 1, 0], [0, 0]])
        return x + self.residual_dropout(self._branch(padded, condition), training=training)

    def init_cache(self, batch_size):
        """The empty cache of `step`: what stands to the left of a row, (batch, n - 1, dim)."""
        return ops.zeros((batch_size, self.kernel_size - 1, self.dim), dtype=self.compute_dtype)

    def step(self, x, cache, condition=None) -> tuple:
        """The output at one column, given those to its left; the columns of a row go through this in order.

        Args:
            x: (batch, dim), the input at this column.
            cache: what `init_cache`, or the step before, returned.
            condition: None or (batch, any dimension), at this column.

        Returns:
            the output (batch, dim), equal to `call` at this column, and the new cache.
        """
        left = ops.concatenate([cache, x[:, None]], axis=1)
        condition = None if condition is None else condition[:, None, None]
        return x + self._branch(left[:, None], condition)[:, 0, 0], left[:, 1:]

    def _branch(self, padded, condition):
        return self.project_out(self._gate(self._before_gate(padded, condition)))

    def get_config(self):
        return {**super().get_config(), "kernel_size": self.kernel_size, "dropout": self.dropout}
