"""Multi-head attention: of a sequence to itself, to what came before, and to a memory; with caches for generation."""

import keras
from keras import ops

from vq_keras.errors import InputError

# Added to the score of a key that a query must not see. exp() of it is exactly zero in float32, and unlike -inf it
# gives no NaN when it meets another one: a query that sees no key at all gets a mean of the values.
HIDDEN = -1e9


class MultiHeadAttention(keras.layers.Layer):
    """What every attention here is made of: projections without biases, heads, and the scaled dot product.

        attend(Q, K, V) = softmax(Q K' / sqrt(dim / heads)) V        for each head

    (Vaswani et al. 2017, section 3.2). The softmax is computed in float32 under every dtype policy. The weights have
    no dropout: there are as many of them as pairs of positions, and drawing random numbers for all takes longer on a
    CPU than the attention itself.

    Args:
        num_heads: number of attention heads; must divide the dimension of the input.

    Raises:
        InputError: `num_heads` is below 1, or does not divide the dimension of the input.
    """

    def __init__(self, num_heads: int, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True  # Masks are arguments, as in `Stack`.
        if num_heads < 1:
            raise InputError(f"num_heads is {num_heads}; give at least 1.")
        self.num_heads = num_heads

    def _set_dim(self, dim):
        if dim % self.num_heads:
            raise InputError(f"num_heads is {self.num_heads}, which does not divide the dimension {dim} of the input.")
        self.dim = dim
        self.head_dim = dim // self.num_heads

    def _projection(self, name, input_shape, number=1):
        """`number` projections in one matrix product, each with the initial scale that it would have alone."""
        layer = keras.layers.Dense(
            number * self.dim,
            use_bias=False,
            kernel_initializer=keras.initializers.VarianceScaling(1.0, "fan_in", "uniform"),
            dtype=self.dtype_policy,
            name=name,
        )
        layer.build(input_shape)
        return layer

    def _split_heads(self, x):
        """(batch, n, dim) -> (batch, heads, n, dim / heads)."""
        shape = (-1, ops.shape(x)[1], self.num_heads, self.head_dim)
        return ops.transpose(ops.reshape(x, shape), (0, 2, 1, 3))

    def _join_heads(self, x):
        """(batch, heads, n, dim / heads) -> (batch, n, dim)."""
        return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, ops.shape(x)[2], self.dim))

    def _attend(self, queries, keys, values, bias=0.0):
        """What the values (..., m, head_dim) are for queries (..., n, head_dim); `bias` is added to the scores."""
        queries = queries * self.head_dim**-0.5
        scores = ops.cast(ops.matmul(queries, ops.swapaxes(keys, -1, -2)), "float32") + bias
        return ops.matmul(ops.cast(ops.softmax(scores, axis=-1), values.dtype), values)

    def get_config(self):
        return {**super().get_config(), "num_heads": self.num_heads}


@keras.saving.register_keras_serializable(package="vq_keras")
class SelfAttention(MultiHeadAttention):
    """Attention of all positions of a sequence to all that are not padding. Arguments as for `MultiHeadAttention`.

    Shapes:
        input and output (batch, n, dim); key_mask (batch, n), true where a position may be seen, or None for all.

    Example:
        >>> attention = SelfAttention(num_heads=4)
        >>> x, key_mask = keras.random.normal((2, 10, 32)), ops.arange(10) < ops.array([[10], [7]])
        >>> attention(x, key_mask).shape
        (2, 10, 32)
    """

    def build(self, input_shape):
        self._set_dim(input_shape[-1])
        # Queries, keys and values in one product.
        self.project_in = self._projection("project_in", input_shape, 3)
        self.project_out = self._projection("project_out", input_shape)

    def call(self, x, key_mask=None):
        return self._attend_to_itself(x, _padding_bias(key_mask))

    def _attend_to_itself(self, x, bias):
        # A split has a cheap gradient; that of three slices takes half of the step on a CPU.
        queries, keys, values = (self._split_heads(y) for y in ops.split(self.project_in(x), 3, axis=-1))
        return self.project_out(self._join_heads(self._attend(queries, keys, values, bias)))


@keras.saving.register_keras_serializable(package="vq_keras")
class CausalSelfAttention(SelfAttention):
    """Attention of each position to itself and those before it. Arguments as for `MultiHeadAttention`.

    It takes no mask: padding that follows a sequence is never before any of its positions.

    Shapes:
        input and output (batch, n, dim).

    Example:
        >>> attention = CausalSelfAttention(num_heads=4)
        >>> y = attention(keras.random.normal((2, 10, 32)))
        >>> y0, cache = attention.step(keras.random.normal((2, 32)), 0, attention.init_cache(2, length=10))
    """

    def call(self, x):
        positions = ops.arange(ops.shape(x)[1], dtype="int32")
        return self._attend_to_itself(x, ops.where(positions[:, None] >= positions, 0.0, HIDDEN))

    def init_cache(self, batch_size, length: int) -> dict:
        """The empty cache of `step`: a ring of slots, of which position p takes slot p mod `length`.

        Args:
            batch_size: number of sequences, an int or a scalar tensor.
            length: number of positions that will be generated.

        Returns:
            {"keys", "values"}, each (batch, heads, slots, dim / heads).
        """
        shape = (batch_size, self.num_heads, length, self.head_dim)
        return {name: ops.zeros(shape, dtype=self.compute_dtype) for name in ("keys", "values")}

    def step(self, x, position, cache: dict) -> tuple:
        """The output at one position, given what `step` has put into the cache at those before it.

        Args:
            x: (batch, dim), the input at this position.
            position: t, an int or an int32 scalar tensor; a sequence goes through 0, 1, 2, ... in order.
            cache: what `init_cache`, or the step before, returned.

        Returns:
            the output (batch, dim), equal to `call` at this position, and the new cache.
        """
        query, key, value = (
            ops.reshape(y, (-1, self.num_heads, 1, self.head_dim)) for y in ops.split(self.project_in(x), 3, axis=-1)
        )
        num_slots = ops.shape(cache["keys"])[2]
        slots = ops.arange(num_slots, dtype="int32")
        # where() and no slice update: on TensorFlow that is an XLA operation, which TF Serving refuses to run.
        here = ops.equal(slots, position % num_slots)[:, None]
        cache = {"keys": ops.where(here, key, cache["keys"]), "values": ops.where(here, value, cache["values"])}

        held = position - (position - slots) % num_slots  # Below zero where a slot is still empty.
        bias = ops.where(held >= self._first_seen(position), 0.0, HIDDEN)
        attended = self._attend(query, cache["keys"], cache["values"], bias)
        return self.project_out(ops.reshape(attended, (-1, self.dim))), cache

    def _first_seen(self, position):
        """The first position that the query at `position` attends to."""
        return 0


@keras.saving.register_keras_serializable(package="vq_keras")
class CrossAttention(MultiHeadAttention):
    """Attention of a sequence to a memory, such as a decoder's to the encoded source.

    Keys and values depend on the memory alone: generation projects them once (`project_memory`). The beams of a
    sentence are to it so many query positions, so that nothing of its memory is ever repeated.

    Arguments as for `MultiHeadAttention`.

    Shapes:
        input and output (batch, n, dim); memory (batch, m, any dimension); key_mask (batch, m), true where the
        memory may be seen, or None for all of it.

    Example:
        >>> attention = CrossAttention(num_heads=4)
        >>> memory = keras.random.normal((2, 7, 32))
        >>> attention(keras.random.normal((2, 10, 32)), memory).shape
        (2, 10, 32)
        >>> attention.step(keras.random.normal((6, 32)), attention.project_memory(memory)).shape  # three beams each
        (6, 32)
    """

    def build(self, x_shape, memory_shape):
        self._set_dim(x_shape[-1])
        self.project_queries = self._projection("project_queries", x_shape)
        self.project_keys_and_values = self._projection("project_keys_and_values", memory_shape, 2)
        self.project_out = self._projection("project_out", x_shape)

    def call(self, x, memory, key_mask=None):
        return self._attend_to(self.project_memory(memory), x, key_mask)

    def project_memory(self, memory) -> dict:
        """The keys and values of a memory (batch, m, dim): {"keys", "values"}, each (batch, heads, m, dim / heads)."""
        keys, values = (self._split_heads(y) for y in ops.split(self.project_keys_and_values(memory), 2, axis=-1))
        return {"keys": keys, "values": values}

    def step(self, x, projected: dict, key_mask=None):
        """The output at one position of each sequence.

        Args:
            x: (rows, dim). Rows are the batch, or so many beams for each element of it, those of one element together.
            projected: what `project_memory` returned for the batch, which must not be empty.
            key_mask: (batch, m) as in `call`.

        Returns:
            (rows, dim).
        """
        beams = ops.reshape(x, (ops.shape(projected["keys"])[0], -1, x.shape[-1]))
        return ops.reshape(self._attend_to(projected, beams, key_mask), (-1, self.dim))

    def _attend_to(self, projected, x, key_mask):
        queries = self._split_heads(self.project_queries(x))
        attended = self._attend(queries, projected["keys"], projected["values"], _padding_bias(key_mask))
        return self.project_out(self._join_heads(attended))


def _padding_bias(key_mask):
    """What is added to the scores (batch, heads, queries, keys) for a mask (batch, keys)."""
    return 0.0 if key_mask is None else ops.where(key_mask, 0.0, HIDDEN)[:, None, None, :]
