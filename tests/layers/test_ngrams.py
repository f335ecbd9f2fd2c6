"""The language model as a layer, against its tables word by word."""

import numpy as np
import pytest
from backing_off import log_prob_of, random_sentences
from compiled import compiled, numpy
from keras import ops

from vq_keras.kneser_ney import kneser_ney
from vq_keras.layers import NGrams

SIZE = 10


@pytest.mark.parametrize("order", [2, 3, 5])
def test_any_words_have_the_probability_that_the_tables_give_them(order):
    sentences = random_sentences(300)
    ngrams, log_prob = NGrams.fit(sentences, SIZE, order), log_prob_of(kneser_ney(sentences, SIZE, order))
    rng = np.random.default_rng(1)
    # Some of the text itself, some with words that it does not have.
    histories = np.array(
        [*(row[:7] for row in sentences if len(row) > 7)][:20] + rng.integers(0, SIZE, (20, 7)).tolist()
    )

    def along(words):
        nodes = ops.broadcast_to(ngrams.beginning(), (40, order))
        found = []
        for t in range(7):
            every = ops.broadcast_to(ops.arange(SIZE, dtype="int32"), (40, SIZE))
            log_probs, behind = ngrams(nodes, every)
            found.append(log_probs)
            nodes = ops.take_along_axis(behind, words[:, t, None, None], axis=1)[:, 0]
        return ops.stack(found, axis=1)

    found = numpy(compiled(along)(histories.astype("int32")))
    expected = [
        [[log_prob((1, *row[:t]), word) for word in range(SIZE)] for t in range(7)] for row in histories.tolist()
    ]
    # Sums of five float32 terms.
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len({round(float(each), 3) for each in found[:, 6, 4]}) > 4


def test_words_may_be_asked_for_by_any_number_of_histories():
    ngrams = NGrams.fit(random_sentences(100), SIZE, 3)
    nodes = ops.broadcast_to(ngrams.beginning(), (2, 4, 3))
    words = np.arange(24, dtype="int32").reshape(2, 4, 3) % SIZE
    log_probs, behind = ngrams(nodes, words)
    every, _ = ngrams(ngrams.beginning(), ops.arange(SIZE, dtype="int32"))
    np.testing.assert_allclose(log_probs, numpy(every)[words], rtol=1e-6)
    assert ops.shape(behind) == (2, 4, 3, 3)


def test_its_tables_are_fixed_and_saved():
    ngrams = NGrams.fit(random_sentences(100), SIZE, 3)
    assert ngrams.trainable_variables == []
    ngrams.weight.assign(1.5)
    again = NGrams.from_config(ngrams.get_config())
    again.set_weights(ngrams.get_weights())
    words = ops.arange(SIZE, dtype="int32")
    for one, other in zip(again(again.beginning(), words), ngrams(ngrams.beginning(), words), strict=True):
        np.testing.assert_array_equal(one, other)
    assert float(again.weight) == 1.5 and float(again.bonus) == 5.0
