"""One table for the embeddings of ids and for the logits over them."""

import contextlib

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="vq_keras")
class TiedEmbedding(keras.layers.Layer):
    """Embeds ids as sqrt(dim) times their rows of a table; in reverse, the logit of an id is the product with its row.

    Rows have length one on average, so embeddings have units of order one and so have the logits of normalised
    vectors. The logits are computed in float32 under every dtype policy: log-likelihoods are their differences.

    Source: Press and Wolf 2017; Vaswani et al. 2017, section 3.4.

    Args:
        vocabulary_size: number of ids.
        dim: dimension of the embeddings.

    Shapes:
        input: ids (...) int32; output (..., dim). With `reverse`, input (..., dim); output (..., vocabulary_size).

    Example:
        >>> embedding = TiedEmbedding(vocabulary_size=100, dim=8)
        >>> embedding(embedding(ops.zeros((2, 5), "int32")), reverse=True).shape
        (2, 5, 100)
    """

    def __init__(self, vocabulary_size: int, dim: int, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True  # Else Keras warns of states that come with one.
        self.vocabulary_size = vocabulary_size
        self.dim = dim
        self._codes = self._scales = None

    def build(self, input_shape=None):
        initializer = keras.initializers.RandomNormal(stddev=self.dim**-0.5)
        self.table = self.add_weight(
            shape=(self.vocabulary_size, self.dim),
            initializer=initializer,
            name="table",
            dtype="float32",
            autocast=False,
        )

    def call(self, inputs, reverse=False):
        if reverse:
            return ops.matmul(ops.cast(inputs, "float32"), ops.transpose(self.table))
        return ops.cast(self._rows(inputs) * self.dim**0.5, self.compute_dtype)

    def _rows(self, ids):
        if self._codes is None:
            return ops.take(self.table, ids, axis=0)
        # Scales as the bits that they are, lest the converter round them to 8 bits, too.
        scales = ops.view(ops.take(self._scales.view("int32"), ids, axis=0), "float32")
        return ops.cast(ops.take(self._codes, ids, axis=0), "float32") * scales

    @contextlib.contextmanager
    def rounded(self):
        """Rounds the table to a scale for each row times integers of -127 to 127, for as long as the context lasts.

        What is traced meanwhile looks ids up among those integers, int8. A converter that makes int8 of the weights of
        products, a scale a row, comes to the same integers for the logits, so that a file holds the table once.

        Example:
            >>> with embedding.rounded():
            ...     embedding(ops.array([5]))  # at most a 254th of the row's largest number away, times sqrt(dim)
        """
        exact = ops.convert_to_numpy(self.table)
        self._scales = np.maximum(np.abs(exact).max(axis=1, keepdims=True), np.finfo("float32").tiny) / np.float32(127)
        self._codes = np.round(exact / self._scales).astype("int8")
        self.table.assign(self._codes * self._scales)
        try:
            yield
        finally:
            self._codes = self._scales = None
            self.table.assign(exact)

    def get_config(self):
        return {**super().get_config(), "vocabulary_size": self.vocabulary_size, "dim": self.dim}
