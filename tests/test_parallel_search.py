"""Noisy parallel decoding, against brute force over its candidates; the exported graph."""

import keras
import numpy as np
import pytest
from compiled import compiled, numpy
from id_rows import VOCABULARY, penalty, sentences, with_ends

from vq_keras import saved_model
from vq_keras.errors import InputError
from vq_keras.models.parallel_transformer import ParallelTransformer
from vq_keras.models.transformer import Transformer
from vq_keras.search import ParallelSearch

needs_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="SavedModels are TensorFlow's")

SIZES = {"num_encoder_layers": 1, "num_decoder_layers": 1, "hidden_dim": 16, "num_heads": 2, "feed_forward_dim": 24}


def with_preferences(model):
    """An untrained model hardly has any: larger embeddings give it some."""
    model.embedding.table.assign(3.0 * model.embedding.table)
    return model


@pytest.fixture(scope="module")
def teacher():
    keras.utils.set_random_seed(0)
    return with_preferences(Transformer(VOCABULARY, dropout=0.0, **SIZES))


@pytest.fixture(scope="module", params=["classifier", "fertility"])
def model(request):
    keras.utils.set_random_seed(1)
    model = with_preferences(ParallelTransformer(VOCABULARY, request.param, dropout=0.0, **SIZES))
    # Fertilities from 0 to 3, most of them 1, as trained models have them.
    if request.param == "fertility":
        model.target_lengths.to_logits.bias.assign([2.0, 4.0, 3.0, 1.0, *[-5.0] * 47])
    return model


SOURCE = sentences(8, 8, 3, 5)


def found(search, source):
    outputs = search.predict_on_batch(source)
    return np.asarray(outputs["tokens"]), np.asarray(outputs["scores"])


def candidates_of(model, number):
    """Each candidate decoded by itself: tokens (3, number, 24) and scores (3, number)."""
    copies, scores = compiled(lambda source: model.propose(model.encode(source), number))(SOURCE)
    decode = compiled(lambda source, copies: model.decode(model.encode(source), copies))
    decoded = [decode(SOURCE, np.asarray(copies)[:, i : i + 1]) for i in range(number)]
    tokens = np.concatenate([np.asarray(each["tokens"]) for each in decoded], axis=1)
    return tokens, numpy(scores) + np.concatenate([numpy(each["log_probs"]) for each in decoded], axis=1)


def test_of_several_candidates_the_likeliest_is_kept(model):
    expected, expected_scores = candidates_of(model, 6)
    tokens, scores = found(ParallelSearch(model), SOURCE)
    np.testing.assert_array_equal(tokens, expected[:, 0])
    np.testing.assert_allclose(scores, expected_scores[:, 0], rtol=1e-4)
    tokens, scores = found(ParallelSearch(model, candidates=6), SOURCE)
    np.testing.assert_array_equal(tokens, expected[np.arange(3), expected_scores.argmax(1)])
    np.testing.assert_allclose(scores, expected_scores.max(1), rtol=1e-4)


def test_a_judge_decides_by_the_score_of_its_beam_search(model, teacher):
    expected, own_scores = candidates_of(model, 6)
    score = compiled(lambda source, target: teacher.score(teacher.encode(source), target))
    ended = [with_ends(expected[:, i]) for i in range(6)]
    log_probs = np.stack([numpy(score(SOURCE, each)) for each in ended], axis=1)
    judged = log_probs / np.stack([penalty(each) for each in ended], axis=1)
    tokens, scores = found(ParallelSearch(model, candidates=6, judge=teacher), SOURCE)
    np.testing.assert_array_equal(tokens, expected[np.arange(3), judged.argmax(1)])
    np.testing.assert_allclose(scores, judged.max(1), rtol=1e-4)
    assert (judged.argmax(1) != own_scores.argmax(1)).any()
    # Translations by drawn fertilities are of about one length.
    assert model.lengths == "fertility" or (judged.argmax(1) != log_probs.argmax(1)).any()


def test_a_padded_batch_gives_what_each_sentence_gives_alone(model, teacher):
    search = ParallelSearch(model, candidates=6, judge=teacher)
    tokens, scores = found(search, SOURCE)
    alone_tokens, alone_scores = found(search, SOURCE[1:2, :3])
    np.testing.assert_array_equal(tokens[1, :14], alone_tokens[0])
    assert not tokens[1, 14:].any()
    np.testing.assert_allclose(scores[1], alone_scores[0], rtol=1e-4)


def test_a_hundred_candidates_hold_the_only_one(model):
    _, one = found(ParallelSearch(model), SOURCE)
    search = ParallelSearch(model, candidates=100)
    tokens, hundred = found(search, SOURCE)
    assert (hundred >= one - 1e-4).all()
    np.testing.assert_array_equal(found(search, SOURCE)[0], tokens)


def test_the_seed_decides_what_is_drawn(model):
    first, again, other = (np.asarray(model.propose(model.encode(SOURCE), 3, seed)[0]) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[:, 0], other[:, 0])
    assert (first == other).all() == (model.lengths == "classifier")


@pytest.mark.slow
@needs_tensorflow
def test_the_exported_graph_gives_the_same(model, teacher, tmp_path):
    import tensorflow as tf

    search = ParallelSearch(model, candidates=6, judge=teacher)
    signature = saved_model.Signature(search, {"source": ((None, None), "int32")})
    served = tf.saved_model.load(str(saved_model.write(tmp_path, {"translate": signature}))).signatures["translate"]
    for source in (SOURCE, SOURCE[1:2, :3]):
        tokens, scores = found(search, source)
        outputs = served(source=source)
        np.testing.assert_array_equal(outputs["tokens"], tokens)
        np.testing.assert_allclose(outputs["scores"], scores, rtol=1e-4)


def test_bad_input(model, teacher):
    with pytest.raises(InputError, match="candidates is 0; give at least 1"):
        ParallelSearch(model, candidates=0)
    with pytest.raises(InputError, match="nothing to choose from with one candidate"):
        ParallelSearch(model, judge=teacher)
    if model.lengths == "classifier":
        with pytest.raises(InputError, match="candidates is 102; a length classifier knows 101 lengths"):
            ParallelSearch(model, candidates=102)
