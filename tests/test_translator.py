"""Sentences through a translator: their order, what is empty, what is too long, and the batches."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from vq_keras.errors import InputError
from vq_keras.translator import Translation, Translator


class Characters:
    """A vocabulary of characters, each its own id."""

    def encode(self, sentences):
        return [np.array([*map(ord, sentence), 1], np.int32) for sentence in sentences]

    def decode(self, ids):
        return ["".join(map(chr, row[row > 1])) for row in np.asarray(ids)]


class Mirror:
    """Translates by writing backwards; the score is the length. It remembers the shapes of its batches."""

    def __init__(self):
        self.shapes = []

    def predict_on_batch(self, source):
        assert source.dtype == np.int32 and (source[:, 0] > 0).all()
        self.shapes.append(source.shape)
        return {"tokens": source[:, ::-1], "scores": (source > 1).sum(1).astype("float32")}


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(st.lists(st.text("abc", max_size=40), max_size=60), st.integers(40, 200))
def test_each_sentence_gets_its_own_translation(sentences, tokens):
    search = Mirror()
    found = Translator(search, Characters(), max_length=40, tokens_per_batch=tokens).translate(sentences)
    for sentence, translation in zip(sentences, found, strict=True):
        kept = sentence[:39]
        assert translation == Translation(kept[::-1], len(kept), len(sentence) > 39)
    assert all(rows * length <= tokens and length % 8 == 0 for rows, length in search.shapes)


def test_few_shapes_and_sentences_of_about_one_length_together():
    search = Mirror()
    Translator(search, Characters(), max_length=40, tokens_per_batch=80).translate(["ab"] * 25 + ["a" * 9] * 3 + [""])
    assert search.shapes == [(10, 8), (10, 8), (10, 8), (4, 16)]


def test_the_longest_source_has_a_batch_of_its_own_if_need_be():
    search = Mirror()
    found = Translator(search, Characters(), max_length=10, tokens_per_batch=8).translate(["a" * 9, "b" * 8, "c"])
    assert [each.text for each in found] == ["a" * 9, "b" * 8, "c"]
    assert search.shapes == [(1, 8), (1, 16), (1, 16)]


def test_nothing_to_translate():
    search = Mirror()
    translator = Translator(search, Characters(), max_length=40)
    assert translator.translate([]) == []
    assert translator.translate([""]) == [Translation("", 0.0, False)]
    assert search.shapes == []


def test_progress_is_told_of_every_batch():
    seen = []

    def track(batches):
        seen.append(len(batches))
        return batches

    Translator(Mirror(), Characters(), max_length=40, tokens_per_batch=80).translate(["ab"] * 25, track)
    assert seen == [3]


def test_a_source_without_room_for_a_word_is_refused():
    with pytest.raises(InputError, match="max_length is 1; give 2 or more"):
        Translator(Mirror(), Characters(), 1)
