"""Local attention against a brute-force numpy computation with a full mask."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from vq_keras.errors import InputError
from vq_keras.layers import LocalSelfAttention

DIM = 8


def window(length, block_length):
    """seen[t, j]: whether the query at t attends to position j, by the definition."""
    seen = np.zeros((length, length), bool)
    for t in range(length):
        seen[t, max(0, (t // block_length - 1) * block_length) : t + 1] = True
    return seen


def brute_force(layer, x):
    """The whole (n, n) attention in float64."""
    x = np.asarray(x, "float64")
    kernel_in, kernel_out = (np.asarray(ops.convert_to_numpy(w), "float64") for w in layer.weights)
    batch, length, dim = x.shape
    head_dim = dim // layer.num_heads
    queries, keys, values = (
        y.reshape(batch, length, layer.num_heads, head_dim) for y in np.split(x @ kernel_in, 3, axis=-1)
    )
    scores = np.einsum("bqhd,bkhd->bhqk", queries, keys) / np.sqrt(head_dim)
    scores = np.where(window(length, layer.block_length), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bhqk,bkhd->bqhd", weights, values).reshape(batch, length, dim) @ kernel_out


def make(length, block_length, num_heads=2, **kwargs):
    layer = LocalSelfAttention(num_heads, block_length, **kwargs)
    layer.build((None, length, DIM))
    return layer


def inputs(length, batch=2):
    return np.random.default_rng(length).normal(size=(batch, length, DIM)).astype("float32")


def compiled(function):
    """One compilation for each shape on JAX, where eager code compiles every operation for itself."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    return function


def output(layer, x):
    return ops.convert_to_numpy(compiled(lambda x: ops.cast(layer(x), "float32"))(x))


def all_steps(layer, x, length=None):
    cache = layer.init_cache(x.shape[0], length)
    step = compiled(layer.step)
    outputs = []
    for t in range(x.shape[1]):
        y, cache = step(x[:, t], t, cache)
        outputs.append(ops.convert_to_numpy(ops.cast(y, "float32")))
    return np.stack(outputs, axis=1)


def gradient(function, x):
    """d function(x) / d x for a scalar function."""
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.jit(jax.grad(function))(x))
    import tensorflow as tf

    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x).numpy()


@settings(deadline=None, max_examples=10, derandomize=True)
@given(length=st.integers(1, 40), block_length=st.integers(1, 24), num_heads=st.sampled_from([1, 2, 4]))
def test_equals_brute_force(length, block_length, num_heads):
    layer, x = make(length, block_length, num_heads), inputs(length)
    # Outputs are of order one; sums of tens of float32 products differ from float64 by a few 1e-7.
    np.testing.assert_allclose(output(layer, x), brute_force(layer, x), atol=3e-6)


@pytest.mark.parametrize("length", [15, 16, 17, 29])
def test_short_sequences_get_full_causal_attention_and_long_ones_do_not(length):
    local, full = make(length, 8), make(length, 64)
    full.set_weights(local.get_weights())
    x = inputs(length)
    difference = np.abs(output(local, x) - output(full, x)).max(axis=(0, 2))
    same = window(length, 8).sum(1) == np.arange(length) + 1
    assert difference[same].max() < 1e-6
    assert same.all() if length <= 16 else difference[~same].min() > 1e-4


def test_a_length_that_is_no_multiple_is_the_start_of_the_longer_sequence():
    long, short = make(48, 8), make(43, 8)
    short.set_weights(long.get_weights())
    x = inputs(48)
    np.testing.assert_allclose(output(short, x[:, :43]), output(long, x)[:, :43], atol=1e-6)


@pytest.mark.parametrize("length, block_length", [(12, 8), (30, 4), (33, 5)])
def test_gradient_reaches_exactly_the_window(length, block_length):
    layer, x = make(length, block_length), inputs(length, batch=1)
    direction = np.random.default_rng(0).normal(size=DIM).astype("float32")
    seen = window(length, block_length)
    for t in {0, 1, block_length, 2 * block_length - 1, length - 1} & set(range(length)):
        reached = gradient(lambda x, t=t: ops.sum(layer(x)[:, t] * direction), x)[0]
        assert (np.abs(reached).max(axis=1) > 0).tolist() == seen[t].tolist()


def test_a_changed_input_changes_exactly_the_outputs_that_see_it():
    length, block_length = 23, 4
    layer = make(length, block_length)
    x = np.repeat(inputs(length, batch=1), length + 1, axis=0)
    x[np.arange(length), np.arange(length)] += 1.0  # row j has position j changed, the last row none
    y = output(layer, x)
    change = np.abs(y[:-1] - y[-1]).max(axis=-1).T  # (t, j)
    seen = window(length, block_length)
    # Rows of one batch may be rounded differently; a change of one in an input moves the outputs by more than 1e-3.
    assert change[~seen].max() < 1e-6
    assert change[seen].min() > 1e-3


@pytest.mark.parametrize("length, block_length, know_length", [(30, 1, False), (29, 4, True), (10, 8, True)])
def test_steps_equal_call(length, block_length, know_length):
    layer, x = make(length, block_length), inputs(length)
    # 30 positions in a ring of 2 slots, 29 in one of 8: both wrap. The same float32 sums in another order.
    np.testing.assert_allclose(all_steps(layer, x, length if know_length else None), output(layer, x), atol=2e-6)


def test_the_cache_is_no_longer_than_the_sequence_or_two_blocks():
    layer = make(100, 8)
    assert layer.init_cache(3)["keys"].shape == (3, 2, 16, 4)
    assert layer.init_cache(3, 100)["values"].shape == (3, 2, 16, 4)
    assert layer.init_cache(3, 10)["values"].shape == (3, 2, 10, 4)


def test_bfloat16_computes_the_softmax_in_float32():
    layer, x = make(40, 8, dtype="mixed_bfloat16"), inputs(40)
    assert keras.backend.standardize_dtype(layer(x).dtype) == "bfloat16"
    y = output(layer, x)
    # bfloat16 has 8 bits: each of four roundings of numbers of order one adds up to 2**-8.
    np.testing.assert_allclose(y, brute_force(layer, x), atol=0.03)
    np.testing.assert_allclose(all_steps(layer, ops.cast(x, "bfloat16")), y, atol=0.03)

    # With equal keys the output is the mean of the values. 300 equal weights that were summed in bfloat16 would stop
    # growing at 256; in float32 the mean of ones is one.
    layer = LocalSelfAttention(1, 512, dtype="mixed_bfloat16")
    layer.build((None, 300, 2))
    layer.set_weights([np.array([[0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1]], "float32"), np.eye(2, dtype="float32")])
    np.testing.assert_allclose(output(layer, np.ones((1, 300, 2), "float32")), 1.0, atol=2**-7)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="reads the sizes from a TensorFlow graph")
def test_no_tensor_of_training_is_larger_than_positions_times_two_blocks():
    import tensorflow as tf

    length, block_length, num_heads = 1024, 8, 2
    layer = make(length, block_length, num_heads)

    @tf.function(input_signature=[tf.TensorSpec((1, length, DIM))])
    def train(x):
        with tf.GradientTape() as tape:
            y = ops.sum(layer(x))
        return tape.gradient(y, layer.trainable_weights)

    graph = train.get_concrete_function().graph
    sizes = [t.shape.num_elements() or 0 for op in graph.get_operations() for t in op.outputs if t.shape.rank]
    assert max(sizes) == num_heads * length * 2 * block_length  # the scores; (n, n) would be 32 times as many


def test_serialises():
    layer = make(20, 4)
    again = LocalSelfAttention.from_config(layer.get_config())
    again.build((None, 20, DIM))
    again.set_weights(layer.get_weights())
    x = inputs(20)
    np.testing.assert_array_equal(output(again, x), output(layer, x))


@pytest.mark.parametrize("arguments", [{"num_heads": 0, "block_length": 4}, {"num_heads": 2, "block_length": 0}])
def test_bad_arguments(arguments):
    with pytest.raises(InputError):
        LocalSelfAttention(**arguments)


def test_heads_that_do_not_divide_the_dimension():
    with pytest.raises(InputError, match="num_heads is 3"):
        LocalSelfAttention(3, 4).build((None, 10, DIM))
