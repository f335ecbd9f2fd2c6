"""The table as embedding and as projection."""

import keras
import numpy as np
from compiled import compiled, numpy

from vq_keras.layers import TiedEmbedding


def test_embeds_and_projects_with_one_table():
    layer = TiedEmbedding(11, 6)
    layer.build()
    (table,) = (numpy(w) for w in layer.weights)
    ids = np.array([[3, 0, 10], [1, 1, 5]])
    np.testing.assert_allclose(numpy(layer(ids)), table[ids] * np.sqrt(6), rtol=1e-6)
    x = np.random.default_rng(0).normal(size=(2, 4, 6)).astype("float32")
    logits = compiled(lambda x: layer(x, reverse=True))(x)
    np.testing.assert_allclose(numpy(logits), x @ table.T, atol=1e-6)


def test_embeddings_have_units_of_order_one():
    layer = TiedEmbedding(1000, 64)
    units = numpy(layer(np.arange(1000)))
    # 64,000 normal numbers: the standard deviation is known to 0.3 %.
    assert abs(units.std() - 1.0) < 0.02


def test_logits_are_float32_under_every_policy():
    layer = TiedEmbedding(11, 6, dtype="mixed_bfloat16")
    embedded = layer(np.arange(11))
    assert keras.backend.standardize_dtype(embedded.dtype) == "bfloat16"
    logits = layer(embedded, reverse=True)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    # The table is not rounded: only the embeddings were, to 8 bits.
    (table,) = (numpy(w) for w in layer.weights)
    np.testing.assert_allclose(numpy(logits), numpy(embedded) @ table.T, atol=1e-6)
