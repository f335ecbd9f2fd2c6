"""Full self-attention and cross-attention against the formula in numpy."""

import keras
import numpy as np
import pytest
from compiled import compiled, numpy

from vq_keras.errors import InputError
from vq_keras.layers import CausalSelfAttention, CrossAttention, SelfAttention

DIM, HEADS = 8, 2


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def attention(x, memory, seen, query, key, value, out):
    """In float64; seen (batch, n, m) says which keys a query attends to."""
    x, memory, query, key, value, out = (np.asarray(y, "float64") for y in (x, memory, query, key, value, out))
    queries, keys, values = (
        y.reshape(*y.shape[:2], HEADS, DIM // HEADS) for y in (x @ query, memory @ key, memory @ value)
    )
    scores = np.einsum("bqhd,bkhd->bhqk", queries, keys) / np.sqrt(DIM // HEADS)
    weights = np.exp(scores) * seen[:, None]
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bhqk,bkhd->bqhd", weights, values).reshape(x.shape) @ out


def kernels(layer):
    """Those of queries, keys, values and the output."""
    if isinstance(layer, CrossAttention):
        query, key_and_value, out = (numpy(w) for w in layer.weights)
        return query, *np.split(key_and_value, 2, axis=-1), out
    query_key_and_value, out = (numpy(w) for w in layer.weights)
    return *np.split(query_key_and_value, 3, axis=-1), out


def make(kind, *shapes, **kwargs):
    layer = kind(HEADS, **kwargs)
    layer.build(*shapes or [(None, None, DIM)])
    return layer


def lengths_mask(*lengths):
    return np.arange(max(lengths)) < np.array(lengths)[:, None]


def test_self_attention_equals_the_formula_and_sees_no_padding():
    layer, x, mask = make(SelfAttention), normal(3, 7, DIM), lengths_mask(7, 4, 1)
    expected = attention(x, x, np.repeat(mask[:, None], 7, axis=1), *kernels(layer))
    # Sums of tens of float32 products of order one.
    np.testing.assert_allclose(numpy(compiled(layer)(x, mask)), expected, atol=3e-6)
    expected = attention(x, x, np.ones((3, 7, 7)), *kernels(layer))
    np.testing.assert_allclose(numpy(compiled(layer)(x)), expected, atol=3e-6)


def test_causal_self_attention_equals_the_formula():
    layer, x = make(CausalSelfAttention), normal(2, 9, DIM)
    expected = attention(x, x, np.repeat(np.tri(9)[None], 2, axis=0), *kernels(layer))
    np.testing.assert_allclose(numpy(compiled(layer)(x)), expected, atol=3e-6)


def test_cross_attention_equals_the_formula_with_a_memory_of_another_width():
    layer = make(CrossAttention, (None, None, DIM), (None, None, 12))
    x, memory, mask = normal(2, 5, DIM), normal(2, 6, 12, seed=1), lengths_mask(6, 2)
    expected = attention(x, memory, np.repeat(mask[:, None], 5, axis=1), *kernels(layer))
    np.testing.assert_allclose(numpy(compiled(layer)(x, memory, mask)), expected, atol=3e-6)


@pytest.mark.parametrize("room", [0, 3])
def test_causal_steps_equal_call(room):
    layer, x = make(CausalSelfAttention), normal(2, 6, DIM)
    cache, step, outputs = layer.init_cache(2, 6 + room), compiled(layer.step), []
    for t in range(6):
        y, cache = step(x[:, t], np.int32(t), cache)
        outputs.append(numpy(y))
    np.testing.assert_allclose(np.stack(outputs, 1), numpy(layer(x)), atol=2e-6)


def test_steps_of_beams_equal_call_without_repeating_the_memory():
    layer = make(CrossAttention, (None, None, DIM), (None, None, DIM))
    batch, beams = 3, 4
    memory, mask = normal(batch, 5, DIM), lengths_mask(5, 3, 1)
    x = normal(batch * beams, DIM, seed=1)
    projected = layer.project_memory(memory)
    assert projected["keys"].shape == projected["values"].shape == (batch, HEADS, 5, DIM // HEADS)
    repeated = compiled(layer)(x[:, None], np.repeat(memory, beams, axis=0), np.repeat(mask, beams, axis=0))
    np.testing.assert_allclose(numpy(compiled(layer.step)(x, projected, mask)), numpy(repeated)[:, 0], atol=2e-6)


def test_a_memory_that_is_all_padding_gives_no_nan():
    layer = make(CrossAttention, (None, None, DIM), (None, None, DIM))
    memory = normal(1, 5, DIM)
    y = numpy(compiled(layer)(normal(1, 2, DIM, seed=1), memory, np.zeros((1, 5), bool)))
    assert np.isfinite(y).all()


@pytest.mark.parametrize("kind", [SelfAttention, CausalSelfAttention, CrossAttention])
def test_bfloat16_policy(kind):
    x = normal(2, 7, DIM)
    shapes = [(None, None, DIM)] * (2 if kind is CrossAttention else 1)
    arguments = (x, x) if kind is CrossAttention else (x,)
    layer, exact = make(kind, *shapes, dtype="mixed_bfloat16"), make(kind, *shapes)
    exact.set_weights(layer.get_weights())
    y = layer(*arguments)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    # bfloat16 has 8 bits: each of four roundings of numbers of order one adds up to 2**-8.
    np.testing.assert_allclose(numpy(y), numpy(exact(*arguments)), atol=0.03)


@pytest.mark.parametrize("kind", [SelfAttention, CausalSelfAttention, CrossAttention])
def test_serialises(kind):
    layer = kind(HEADS, name="attention", dtype="mixed_bfloat16")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is kind and again.get_config() == layer.get_config()


@pytest.mark.parametrize("kind", [SelfAttention, CausalSelfAttention, CrossAttention])
def test_bad_arguments(kind):
    with pytest.raises(InputError, match="num_heads is 0"):
        kind(0)
    shapes = [(None, None, 10)] * (2 if kind is CrossAttention else 1)
    with pytest.raises(InputError, match="num_heads is 3, which does not divide the dimension 10"):
        kind(3).build(*shapes)
