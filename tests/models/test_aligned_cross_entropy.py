"""What a target costs in whatever slots: against Keras's own loss, and with expected bigrams in it."""

import numpy as np
import pytest
from compiled import compiled, numpy
from keras import ops

from vq_keras.errors import InputError
from vq_keras.layers import TiedEmbedding
from vq_keras.layers.bigrams import expected_bigram_f1
from vq_keras.models.aligned_cross_entropy import AlignedCrossEntropy

TARGET = np.array([[2, 3, 3, 1], [5, 1, 0, 0], [1, 0, 0, 0], [6, 6, 6, 1]], "int32")
LENGTHS, SLOTS = np.array([4, 2, 1, 4], "int32"), np.array([12, 8, 4, 12], "int32")


@pytest.fixture
def embedding():
    layer = TiedEmbedding(7, 6)
    layer.build(None)
    layer.table.assign(np.random.default_rng(0).normal(size=(7, 6)).astype("float32"))
    return layer


HIDDEN = np.random.default_rng(1).normal(size=(4, 12, 6)).astype("float32")


def costs(embedding, share):
    outputs = compiled(lambda *inputs: AlignedCrossEntropy(embedding, share)(*inputs))(HIDDEN, TARGET, SLOTS)
    return {name: numpy(value) for name, value in outputs.items()}


def test_it_is_keras_s_own_loss_of_its_logits(embedding):
    logits = (HIDDEN @ numpy(embedding.table).T).astype("float32")
    expected = numpy(compiled(lambda *inputs: ops.ctc_loss(*inputs, mask_index=0))(TARGET, logits, LENGTHS, SLOTS))
    found = costs(embedding, 0.0)
    np.testing.assert_allclose(found["nll"], expected, rtol=1e-5)
    np.testing.assert_array_equal(found["loss"], found["nll"])
    assert set(found) == {"loss", "nll"}


def test_bigrams_have_their_share(embedding):
    logits = HIDDEN @ numpy(embedding.table).T
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    labels = np.take_along_axis(np.log(p), np.broadcast_to(TARGET[:, None], (4, 12, 4)), axis=-1)
    repeats = np.pad((p[:, 1:, 1:] * p[:, :-1, 1:]).sum(-1), [(0, 0), (1, 0)])
    f1 = compiled(expected_bigram_f1)(np.log(p[..., 0]), labels, repeats, TARGET, LENGTHS, SLOTS)
    nll, found = costs(embedding, 0.0)["nll"], costs(embedding, 0.25)
    # To the rounding of sums of float32 over the vocabulary and the slots.
    np.testing.assert_allclose(found["nll"], nll, rtol=1e-6)
    np.testing.assert_allclose(found["bigrams"], LENGTHS * numpy(f1), rtol=1e-4)
    np.testing.assert_allclose(found["loss"], 0.75 * nll + 0.25 * (LENGTHS - found["bigrams"]), rtol=1e-5)


def test_a_share_is_from_0_to_1(embedding):
    with pytest.raises(InputError, match="the bigrams' share of the loss is -1; give 0 to 1"):
        AlignedCrossEntropy(embedding, -1)
