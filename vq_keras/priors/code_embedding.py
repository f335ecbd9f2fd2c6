"""What a latent predictor reads: codes as vectors, and for a Transformer where they stand."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="vq_keras")
class CodeTable(keras.layers.Layer):
    """Embeds codes, each alone. Of several samples a position the mean of the embeddings is taken, as roy2018, section
    3.2, does for the decoder. Negative ids, which stand for masked positions, embed as zero.

    Args:
        num_codes: size of a codebook.
        num_codebooks: positions cycle through so many codebooks, each of which has rows of its own in the table.
        dim: dimension of the embedding; a vector has unit length on average at first.

    Shapes:
        input: samples (batch, n, m) int32, any m. Output: (batch, n, dim).

    Example:
        >>> table = CodeTable(num_codes=16, num_codebooks=3, dim=8)
        >>> table(ops.zeros((5, 12, 1), "int32")).shape
        (5, 12, 8)
    """

    def __init__(self, num_codes: int, num_codebooks: int, dim: int, **kwargs):
        super().__init__(**kwargs)
        self.num_codes = num_codes
        self.num_codebooks = num_codebooks
        self.dim = dim

    def build(self, input_shape=None):
        self.codes = self._table("codes", self.num_codebooks * self.num_codes, self.dim)

    def call(self, samples):
        positions = ops.arange(samples.shape[1], dtype="int32")
        return ops.cast(self._embed(samples, positions[:, None]), self.compute_dtype)

    def step(self, codes, position):
        """The output (batch, dim) for the codes (batch,) int32 at one position, an int or an int32 scalar tensor."""
        return ops.cast(self._embed(codes[:, None], position), self.compute_dtype)

    def _table(self, name, *shape):
        # The arithmetic is float32 under every policy: a mean over samples is no place to lose bits.
        initializer = keras.initializers.RandomNormal(stddev=self.dim**-0.5)
        return self.add_weight(shape=shape, initializer=initializer, name=name, dtype="float32", autocast=False)

    def _embed(self, samples, positions):
        """The mean embedding over the last axis of ids that stand at `positions`."""
        rows = ops.maximum(samples, 0) + (positions % self.num_codebooks) * self.num_codes
        weights = ops.cast(samples >= 0, "float32") / ops.cast(ops.shape(samples)[-1], "float32")
        return ops.sum(ops.take(self.codes, rows, axis=0) * weights[..., None], axis=-2)

    def get_config(self):
        return {
            **super().get_config(),
            "num_codes": self.num_codes,
            "num_codebooks": self.num_codebooks,
            "dim": self.dim,
        }


@keras.saving.register_keras_serializable(package="vq_keras")
class CodeEmbedding(CodeTable):
    """Embeds a field of codes in raster order, shifted right by one, and adds the position.

    Output t is a function of the codes at position t - 1 (of a learned start vector for t = 0) and of t.

    The released code of roy2018 feeds the predictor with the quantized latents. Here the predictor has a table of its
    own, so that it knows no bottleneck and can be trained, saved and served alone. Positions are a sum of learned
    vectors, one for each axis of the field, in place of sinusoids: the last axis of a field of 8 x 8 x 10 counts the
    latents of one place, an order without a metric that sinusoids could express.

    Args:
        code_shape: the axes of the field, for example (height, width, latents a place).
        num_codes: size of a codebook.
        num_codebooks: the last axis cycles through so many codebooks, each of which has rows of its own in the table.
        dim: dimension of the embedding.

    Shapes:
        input: samples (batch, n, m) int32, n the product of `code_shape`, any m. Output: (batch, n, dim).

    Example:
        >>> embedding = CodeEmbedding((2, 2, 3), num_codes=16, num_codebooks=1, dim=8)
        >>> embedding(ops.zeros((5, 12, 1), "int32")).shape
        (5, 12, 8)
    """

    def __init__(self, code_shape: tuple, num_codes: int, num_codebooks: int, dim: int, **kwargs):
        super().__init__(num_codes, num_codebooks, dim, **kwargs)
        self.code_shape = tuple(code_shape)

    def build(self, input_shape=None):
        super().build(input_shape)
        self.start = self._table("start", self.dim)
        self.axes = [self._table(f"axis_{i}", size, self.dim) for i, size in enumerate(self.code_shape)]

    def call(self, samples):
        length = samples.shape[1]
        positions = ops.arange(length, dtype="int32")
        before = self._embed(samples[:, :-1], positions[:-1, None])
        start = ops.broadcast_to(self.start, (ops.shape(samples)[0], 1, self.dim))
        shifted = ops.concatenate([start, before], axis=1)
        return ops.cast(shifted + self._place(positions), self.compute_dtype)

    def step(self, codes, position):
        """The output (batch, dim) at one position.

        Args:
            codes: (batch,) int32, the codes at the position before; not read at position 0.
            position: t, an int or an int32 scalar tensor.
        """
        before = self._embed(codes[:, None], position - 1)
        shifted = ops.where(ops.equal(position, 0), ops.convert_to_tensor(self.start), before)
        return ops.cast(shifted + self._place(position), self.compute_dtype)

    def _place(self, positions):
        """The sum of the vectors of a position's coordinates, last axis fastest."""
        place, stride = 0.0, 1
        for size, axis in zip(reversed(self.code_shape), reversed(self.axes), strict=True):
            place += ops.take(axis, (positions // stride) % size, axis=0)
            stride *= size
        return place

    def get_config(self):
        return {**super().get_config(), "code_shape": self.code_shape}
