"""The Transformer against that of tf-models-official on the same weights."""

import keras
import numpy as np
import pytest
from compiled import compiled, numpy

from vq_keras.models.transformer import Transformer

if keras.backend.backend() != "tensorflow":
    pytest.skip("tf-models-official runs on TensorFlow", allow_module_level=True)
seq2seq = pytest.importorskip("official.nlp.modeling.models.seq2seq_transformer", reason="needs vq_keras[official]")

VOCABULARY, DIM, HEADS, HIDDEN_UNITS, LAYERS = 17, 16, 4, 24, 2


@pytest.fixture(scope="module")
def official():
    """A model with random weights, norms and biases included."""
    import tensorflow as tf

    sizes = {"num_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": HIDDEN_UNITS}
    model = seq2seq.Seq2SeqTransformer(
        vocab_size=VOCABULARY,
        embedding_width=DIM,
        encoder_layer=seq2seq.TransformerEncoder(**sizes),
        decoder_layer=seq2seq.TransformerDecoder(**sizes),
    )
    model({"inputs": tf.constant([[3, 1]]), "targets": tf.constant([[5, 1]])})  # Builds it.
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(weight + 0.1 * rng.normal(size=weight.shape))
    # It reads padding first where ours reads EOS: they have to embed alike.
    (table,) = model.embedding_lookup.weights
    table.assign(np.concatenate([table[1:2], table[1:]]))
    return model


def square(*layers):
    """Projections (dim, heads, units) to several heads, side by side; or one (heads, units, dim) from them."""
    return np.concatenate([np.reshape(layer.kernel, (DIM, DIM)) for layer in layers], axis=1)


def copy_attention(attention, official):
    queries, keys, values = official._query_dense, official._key_dense, official._value_dense
    if hasattr(attention, "project_in"):
        inwards = [square(queries, keys, values)]
    else:
        inwards = [square(queries), square(keys, values)]
    attention.set_weights([*inwards, square(official._output_dense)])


def copy(pairs):
    for layer, official in pairs:
        layer.set_weights(official.get_weights())


def copy_encoder(encoder, official):
    for block, layer in zip(encoder.blocks, official.encoder_layers, strict=True):
        copy_attention(block.attention, layer._attention_layer)
        copy(
            [
                (block.attention_norm, layer._attention_layer_norm),
                (block.feed_forward_norm, layer._output_layer_norm),
                (block.expand, layer._intermediate_dense),
                (block.contract, layer._output_dense),
            ]
        )
    copy([(encoder.norm, official.output_normalization)])


def copy_decoder(decoder, official):
    for block, layer in zip(decoder.blocks, official.decoder_layers, strict=True):
        copy_attention(block.attention, layer.self_attention)
        copy_attention(block.cross_attention, layer.encdec_attention)
        copy(
            [
                (block.attention_norm, layer.self_attention_layer_norm),
                (block.cross_attention_norm, layer.encdec_attention_layer_norm),
                (block.feed_forward_norm, layer.output_layer_norm),
                (block.expand, layer.intermediate_dense),
                (block.contract, layer.output_dense),
            ]
        )
    copy([(decoder.norm, official.output_normalization)])


@pytest.fixture(scope="module")
def ours(official):
    model = Transformer(VOCABULARY, LAYERS, LAYERS, DIM, HEADS, HIDDEN_UNITS)
    copy([(model.embedding, official.embedding_lookup)])
    copy_encoder(model.encoder, official.encoder_layer)
    copy_decoder(model.decoder, official.decoder_layer)
    return model


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


MASK = np.arange(7) < np.array([[7], [4], [2]])


def test_positions(official, ours):
    np.testing.assert_allclose(
        numpy(ours.positions(np.zeros((1, 100, DIM), "float32")))[0],
        official.position_embedding(inputs=None, length=100),
        atol=1e-5,
    )


def test_encoder(official, ours):
    x = normal(3, 7, DIM)
    expected = official.encoder_layer(x, attention_mask=np.repeat(MASK[:, None], 7, axis=1))
    np.testing.assert_allclose(numpy(compiled(ours.encoder)(x, MASK)), expected, atol=1e-5)


def test_decoder(official, ours):
    x, memory = normal(3, 5, DIM), normal(3, 7, DIM, seed=1)
    expected = official.decoder_layer(
        x,
        memory,
        self_attention_mask=np.repeat(np.tri(5, dtype="float32")[None], 3, axis=0),
        cross_attention_mask=np.repeat(MASK[:, None], 5, axis=1),
    )
    np.testing.assert_allclose(numpy(compiled(ours.decoder)(x, memory, MASK)), expected, atol=1e-5)


def test_logits_of_the_whole_model(official, ours):
    import tensorflow as tf

    rng = np.random.default_rng(1)
    source, target = rng.integers(2, VOCABULARY, (3, 7)) * MASK, rng.integers(1, VOCABULARY, (3, 5))
    source, target = source.astype("int32"), target.astype("int32")
    expected = official({"inputs": tf.constant(source), "targets": tf.constant(target)}, training=False)
    logits = compiled(lambda x: ours(x, training=False)["logits"])({"source": source, "target": target})
    # Logits up to ten, through four blocks.
    np.testing.assert_allclose(numpy(logits), expected, atol=1e-5)
