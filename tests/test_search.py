"""Searches over the two translation models, against the pieces they are made of and against brute force."""

import keras
import numpy as np
import pytest
from compiled import compiled, numpy
from id_rows import VOCABULARY, penalty, sentences, with_ends
from keras import ops

from vq_keras import bottlenecks
from vq_keras.data.vocabulary import EOS
from vq_keras.errors import InputError
from vq_keras.models.latent_transformer import LatentTransformer
from vq_keras.models.transformer import Transformer
from vq_keras.search import MORE_TOKENS, AutoregressiveSearch, LatentSearch

SIZES = {"hidden_dim": 16, "num_heads": 2, "feed_forward_dim": 24, "dropout": 0.0}


@pytest.fixture(scope="module")
def teacher():
    model = Transformer(VOCABULARY, num_encoder_layers=1, num_decoder_layers=1, **SIZES)
    # An untrained model hardly has a preference, but for saying the same word again: larger weights give it others.
    # NumPy's numbers are the same on each backend, so that translations end on each.
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if len(weight.shape) == 2:
            scale = 2.0 if weight is model.embedding.table else 4.0
            weight.assign(scale * rng.normal(size=weight.shape) / np.sqrt(weight.shape[-1]))
    return model


@pytest.fixture(scope="module")
def latent_model():
    keras.utils.set_random_seed(1)
    bottleneck = bottlenecks.VectorQuantizer(5, initializer="normal", seed=0)
    layers = {"num_encoder_layers": 1, "num_predictor_layers": 1, "num_decoder_layers": 1}
    model = LatentTransformer(VOCABULARY, bottleneck, 2, **layers, **SIZES)
    model.embedding.table.assign(3.0 * model.embedding.table)
    return model


def found(search, source):
    outputs = search.predict_on_batch(source)
    return np.asarray(outputs["tokens"]), np.asarray(outputs["scores"])


def log_probs(teacher, source, tokens):
    """Of translations that have a token."""
    logits = teacher.predict_on_batch({"source": source, "target": tokens})["logits"][:, 0]
    empty = np.exp(logits[:, EOS]) / np.exp(logits).sum(axis=1)
    return numpy(teacher.score(teacher.encode(source), tokens)) - np.log(1.0 - empty)


def test_greedy_search_takes_the_likeliest_token_of_the_teacher_forced_model(teacher):
    source = sentences(8, 8, 3, 5)
    tokens, scores = found(AutoregressiveSearch(teacher), source)
    assert tokens.shape == (3, 8 + MORE_TOKENS)
    logits = teacher.predict_on_batch({"source": source, "target": tokens})["logits"]
    logits[:, 0, EOS] = -np.inf
    for row, likeliest in zip(tokens, logits.argmax(-1), strict=True):
        length = np.count_nonzero(row)
        np.testing.assert_array_equal(row[:length], likeliest[:length])
    # Sums of up to 58 float32 terms in two orders.
    np.testing.assert_allclose(scores, log_probs(teacher, source, tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("beams", [1, 4])
def test_a_translation_has_a_token(beams):
    keras.utils.set_random_seed(0)
    model = Transformer(VOCABULARY, num_encoder_layers=1, num_decoder_layers=1, **SIZES)
    # The end is the likeliest token everywhere, as the decoder's output always has this component.
    table = numpy(model.embedding.table)
    table[EOS, 0] = 50.0
    model.embedding.table.assign(table)
    model.decoder.norm.beta.assign(np.eye(16)[0])
    source = sentences(8, 8, 3)
    tokens, scores = found(AutoregressiveSearch(model, beams), source)
    assert (tokens[:, 0] > EOS).all() and (tokens[:, 1] == EOS).all() and not tokens[:, 2:].any()
    # The end after it is certain: a translation costs its token, the likeliest of those that do not end it.
    logits = model.predict_on_batch({"source": source, "target": tokens})["logits"][:, 0]
    others = np.delete(logits, EOS, axis=1)
    expected = others.max(axis=1) - np.log(np.exp(others).sum(axis=1))
    penalty = 1.0 if beams == 1 else (7 / 6) ** 0.6
    np.testing.assert_allclose(scores * penalty, expected, rtol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_padded_batch_gives_what_each_sentence_gives_alone(teacher, beams):
    agree_alone(AutoregressiveSearch(teacher, beams), sentences(8, 8, 3))


@pytest.mark.parametrize("candidates", [1, 3])
def test_a_padded_batch_gives_what_each_sentence_gives_alone_through_codes(latent_model, candidates):
    agree_alone(LatentSearch(latent_model, candidates), sentences(8, 8, 3))


@pytest.mark.parametrize("beams", [1, 3])
def test_the_longest_translation_depends_on_the_sentence_alone(beams):
    model = Transformer(VOCABULARY, num_encoder_layers=1, num_decoder_layers=1, **SIZES)
    # A logit of zero, where the likeliest is positive: nothing ends before it has to.
    table = numpy(model.embedding.table)
    model.embedding.table.assign(9.0 * table * (np.arange(VOCABULARY) != 1)[:, None])
    search = AutoregressiveSearch(model, beams)
    source = sentences(8, 8, 3)
    agree_alone(search, source)
    tokens, _ = found(search, source[1:])
    assert (tokens[0, 3 + MORE_TOKENS - 2 : 3 + MORE_TOKENS] > 0).all()


def agree_alone(search, source):
    tokens, scores = found(search, source)
    alone_tokens, alone_scores = found(search, source[1:, :3])
    width = alone_tokens.shape[1]
    np.testing.assert_array_equal(tokens[1:, :width], alone_tokens)
    assert not tokens[1:, width:].any()
    # Sums of float32 terms that were computed at other shapes.
    np.testing.assert_allclose(scores[1:], alone_scores, rtol=1e-4)


def test_more_beams_find_no_worse_and_score_what_the_model_does(teacher):
    source = sentences(6, 6, 4, 2, seed=3)
    greedy_tokens, greedy = found(AutoregressiveSearch(teacher), source)
    tokens, scores = found(AutoregressiveSearch(teacher, beams=4, length_penalty=0.0), source)
    ended = (greedy_tokens == EOS).any(axis=1)  # Beam search has to end, greedy search has not.
    assert ended.any() and (scores >= greedy - 1e-4)[ended].all()
    np.testing.assert_allclose(scores, log_probs(teacher, source, tokens), rtol=1e-4)


def candidates_of(model, source, number, num_latents=None):
    context = model.encode(source)
    num_latents = model.num_latents(context) if num_latents is None else num_latents
    most = -(-2 * np.count_nonzero(source, axis=1) // 4)
    max_latents = most.max()
    num_latents = np.minimum(numpy(num_latents), most)
    codes, code_scores = model.predict_latents(context, num_latents, max_latents, number)
    decoded = model.decode(context, codes)
    return np.asarray(decoded["tokens"]), numpy(code_scores) + numpy(decoded["log_probs"])


def test_one_candidate_is_greedy_codes_decoded(latent_model):
    source = sentences(8, 8, 3, 5)
    expected, expected_scores = candidates_of(latent_model, source, 1)
    tokens, scores = found(LatentSearch(latent_model), source)
    np.testing.assert_array_equal(tokens, expected[:, 0])
    np.testing.assert_allclose(scores, expected_scores[:, 0], rtol=1e-4)


def test_double_length_takes_two_tokens_for_each_of_the_source(latent_model):
    source = sentences(8, 8, 3, 5)
    expected, _ = candidates_of(latent_model, source, 1, num_latents=np.array([4, 2, 3], "int32"))
    tokens, _ = found(LatentSearch(latent_model, length="double"), source)
    np.testing.assert_array_equal(tokens, expected[:, 0])


def test_of_several_candidates_the_likeliest_is_kept(latent_model):
    source = sentences(8, 8, 3, 5)
    expected, expected_scores = candidates_of(latent_model, source, 6)
    tokens, scores = found(LatentSearch(latent_model, candidates=6), source)
    best = expected_scores.argmax(1)
    np.testing.assert_array_equal(tokens, expected[np.arange(3), best])
    np.testing.assert_allclose(scores, expected_scores.max(1), rtol=1e-4)


def test_a_judge_decides_by_the_score_of_its_beam_search(latent_model, teacher):
    source = sentences(8, 8, 3, 5)
    expected, own_scores = candidates_of(latent_model, source, 6)
    assert any(1 not in row for row in expected.reshape(18, -1))  # A beginning of a sentence is none.
    ended = [with_ends(expected[:, i]) for i in range(6)]
    scored = [numpy(teacher.score(teacher.encode(source), each)) / penalty(each) for each in ended]
    judged = np.stack(scored, axis=1)
    tokens, scores = found(LatentSearch(latent_model, candidates=6, judge=teacher), source)
    np.testing.assert_array_equal(tokens, expected[np.arange(3), judged.argmax(1)])
    np.testing.assert_allclose(scores, judged.max(1), rtol=1e-4)
    assert (judged.argmax(1) != own_scores.argmax(1)).any()


@pytest.fixture
def shorter(latent_model, monkeypatch):
    """The model with targets of 3, 1 and 2 latents, where 4, 2 and 3 are the most."""
    monkeypatch.setattr(latent_model, "num_latents", lambda context: ops.array([3, 1, 2], "int32"))
    return latent_model


@pytest.mark.parametrize("candidates", [1, 3])
def test_in_less_room_it_finds_the_same_or_says_that_it_does_not_fit(shorter, candidates):
    search, source = LatentSearch(shorter, candidates), sentences(8, 8, 3, 5)
    tokens, scores = found(search, source)
    for room, fits in ((1.0, [True, True, True]), (0.7, [True, True, True]), (0.5, [False, True, True])):
        outputs = compiled(lambda source, room=room: search.in_room(source, room))(source)
        np.testing.assert_array_equal(numpy(outputs["fits"]), fits)
        width = outputs["tokens"].shape[1]
        assert width == {1.0: 16, 0.7: 12, 0.5: 8}[room]
        np.testing.assert_array_equal(numpy(outputs["tokens"])[fits], tokens[fits, :width])
        # Sums of float32 terms that were computed at other shapes.
        np.testing.assert_allclose(numpy(outputs["scores"])[fits], scores[fits], rtol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="other backends know all shapes beforehand")
@pytest.mark.parametrize("candidates", [1, 3])
def test_in_any_graph_it_decodes_what_the_longest_needs_alone(shorter, monkeypatch, candidates):
    import tensorflow as tf

    search, source = LatentSearch(shorter, candidates), sentences(8, 8, 3, 5)
    tokens, scores = found(search, source)
    graph = tf.function(search.in_any_graph, input_signature=[tf.TensorSpec((None, None), "int32")])
    outputs = graph(source)
    np.testing.assert_array_equal(outputs["tokens"], tokens)
    np.testing.assert_allclose(outputs["scores"], scores, rtol=1e-4)
    widths, decode = [], shorter.decode
    monkeypatch.setattr(shorter, "decode", lambda *args: widths.append(args[1].shape[2]) or decode(*args))
    search.in_any_graph(source)
    assert widths == [3]


def test_bad_input(teacher, latent_model):
    with pytest.raises(InputError, match="beams is 0; give at least 1"):
        AutoregressiveSearch(teacher, beams=0)
    with pytest.raises(InputError, match="candidates is 0; give at least 1"):
        LatentSearch(latent_model, candidates=0)
    with pytest.raises(InputError, match="nothing to choose from with one candidate"):
        LatentSearch(latent_model, judge=teacher)
    with pytest.raises(InputError, match="length is 'long'; give one of learned, double"):
        LatentSearch(latent_model, length="long")
