"""Encoder and decoder blocks and their stacks: the formula, causality, steps, policies."""

import keras
import numpy as np
import pytest
from compiled import compiled, numpy

from vq_keras.errors import InputError
from vq_keras.layers import DecoderBlock, EncoderBlock, TransformerDecoder, TransformerEncoder

DIM = 8


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def with_random_vectors(layer):
    """Norms that scale and shift, and biases that are not zero, so that a test sees where they stand."""
    rng = np.random.default_rng(0)
    for weight in layer.weights:
        if len(weight.shape) == 1:
            weight.assign(weight + 0.1 * rng.normal(size=weight.shape))
    return layer


def make_encoder(**kwargs):
    layer = TransformerEncoder(2, num_heads=2, feed_forward_dim=12, **kwargs)
    layer.build((None, None, DIM))
    return with_random_vectors(layer)


def make_decoder(**kwargs):
    layer = TransformerDecoder(2, num_heads=2, feed_forward_dim=12, **kwargs)
    layer.build((None, None, DIM), (None, None, DIM))
    return with_random_vectors(layer)


def norm(x, layer):
    gamma, beta = (numpy(w) for w in layer.weights)
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * gamma + beta


def dense(x, layer):
    kernel, bias = (numpy(w) for w in layer.weights)
    return x @ kernel + bias


def feed_forward(x, block):
    (expand, bias), (contract, last_bias) = (
        [numpy(w) for w in block.expand.weights],
        [numpy(w) for w in block.contract.weights],
    )
    return np.maximum(norm(x, block.feed_forward_norm) @ expand + bias, 0) @ contract + last_bias


def test_encoder_is_pre_norm_residual_blocks_and_a_norm():
    encoder, x, mask = make_encoder(), normal(2, 7, DIM), np.arange(7) < np.array([[7], [4]])
    expected = x
    for block in encoder.blocks:
        expected = expected + numpy(compiled(block.attention)(norm(expected, block.attention_norm), mask))
        expected = expected + feed_forward(expected, block)
    # Numbers of order one through five norms and ten products in float32.
    np.testing.assert_allclose(numpy(compiled(encoder)(x, mask)), norm(expected, encoder.norm), atol=1e-5)


def test_decoder_attends_to_itself_then_to_the_memory():
    decoder, x, memory = make_decoder(), normal(2, 5, DIM), normal(2, 7, DIM, seed=1)
    mask = np.arange(7) < np.array([[7], [4]])
    expected = x
    for block in decoder.blocks:
        expected = expected + numpy(compiled(block.attention)(norm(expected, block.attention_norm)))
        normed = norm(expected, block.cross_attention_norm)
        expected = expected + numpy(compiled(block.cross_attention)(normed, memory, mask))
        expected = expected + feed_forward(expected, block)
    np.testing.assert_allclose(numpy(compiled(decoder)(x, memory, mask)), norm(expected, decoder.norm), atol=1e-5)


def test_decoder_steps_equal_call_for_two_beams_a_sentence():
    decoder, x, memory = make_decoder(), normal(4, 6, DIM), normal(2, 7, DIM, seed=1)
    mask = np.arange(7) < np.array([[7], [4]])
    whole = numpy(compiled(decoder)(x, memory.repeat(2, axis=0), mask.repeat(2, axis=0)))
    projected, cache, step = decoder.project_memory(memory), decoder.init_cache(4, 6), compiled(decoder.step)
    for t in range(6):
        y, cache = step(x[:, t], np.int32(t), cache, projected, mask)
        np.testing.assert_allclose(numpy(y), whole[:, t], atol=1e-5)


def test_dropout_falls_on_every_branch_in_training_only():
    x, memory = normal(4, 50, DIM), normal(4, 7, DIM, seed=1)
    block = DecoderBlock(2, 12, dropout=0.5)
    block.build(x.shape, memory.shape)
    evaluate = compiled(lambda x, memory: block(x, memory))
    train = compiled(lambda x, memory: block(x, memory, training=True))
    np.testing.assert_array_equal(numpy(evaluate(x, memory)), numpy(compiled(block)(x, memory)))
    last = {
        "attention": block.attention.project_out,
        "cross": block.cross_attention.project_out,
        "feed": block.contract,
    }
    weights = {name: layer.get_weights() for name, layer in last.items()}
    for alone in last:
        for name, layer in last.items():
            layer.set_weights(weights[name] if name == alone else [np.zeros_like(w) for w in weights[name]])
        change = numpy(train(x, memory)) - x
        # Half of 1,600 units: five standard deviations of the binomial are 0.06.
        assert abs((change == 0).mean() - 0.5) < 0.06, alone


@pytest.mark.parametrize("make", [make_encoder, make_decoder])
def test_bfloat16_policy(make):
    x = normal(2, 7, DIM)
    arguments = (x, x) if make is make_decoder else (x,)
    layer, exact = make(dtype="mixed_bfloat16"), make()
    exact.set_weights(layer.get_weights())
    y = compiled(layer)(*arguments)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    # Six branches, each rounded to 8 bits a few times, and normalised to numbers up to 3.
    np.testing.assert_allclose(numpy(y), numpy(compiled(exact)(*arguments)), atol=0.1)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: EncoderBlock(2, 12, 0.1),
        lambda: DecoderBlock(2, 12, 0.1),
        lambda: TransformerEncoder(3, 2, 12, 0.1),
        lambda: TransformerDecoder(3, 2, 12, 0.1),
    ],
)
def test_serialises(layer):
    layer = layer()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is type(layer) and again.get_config() == layer.get_config()


@pytest.mark.parametrize("kind", [TransformerEncoder, TransformerDecoder])
@pytest.mark.parametrize("wrong", [{"num_layers": 0}, {"num_heads": 0}, {"feed_forward_dim": 0}, {"dropout": 1.0}])
def test_bad_arguments(kind, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        kind(**{"num_layers": 2, "num_heads": 2, "feed_forward_dim": 12, **wrong})
