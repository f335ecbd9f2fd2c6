"""How much n-grams count is chosen by translations of the validation set."""

import types

import numpy as np
import pytest

from vq_keras.data.translation_data import Pairs
from vq_keras.data.vocabulary import Vocabulary
from vq_keras.training import ngrams as module
from vq_keras.training.ngrams import RATIOS, WEIGHTS, add_ngrams

PAIRS = Pairs(
    ["two old houses", "three books and a house", "a red book of four old men"],
    ["zwei alte Häuser sind da", "drei Bücher und ein Haus", "ein rotes Buch von vier alten Männern"],
)


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.train(PAIRS, 300)


class Search:
    """Writes the references where `is_right` likes the model's n-grams, else the sources."""

    def __init__(self, model, vocabulary, is_right):
        self.model, self.is_right = model, is_right
        self.rows = {tuple(row): target for row, target in zip(*map(vocabulary.encode, PAIRS), strict=True)}
        self.asked, self.read = [], set()

    def predict_on_batch(self, source):
        ngrams = self.model.ngrams
        setting = None if ngrams is None else (float(ngrams.weight), float(ngrams.bonus))
        self.asked.append(setting)
        rows = [tuple(row[row > 0].tolist()) for row in np.asarray(source)]
        self.read.update(rows)
        rows = [self.rows.get(row, row) if self.is_right(setting) else row for row in rows]
        tokens = np.zeros((len(rows), max(map(len, rows))), "int32")
        for place, row in zip(tokens, rows, strict=True):
            place[: len(row)] = row
        return {"tokens": tokens, "scores": np.zeros(len(rows), "float32")}


def added(vocabulary, is_right):
    model, searches = types.SimpleNamespace(ngrams=None), []

    def make_search(model):
        searches.append(Search(model, vocabulary, is_right))
        return searches[-1]

    bleu = add_ngrams(model, make_search, vocabulary, PAIRS.targets, PAIRS, 3, 64)
    return model.ngrams, bleu, [each for search in searches for each in search.asked]


def test_the_weight_is_chosen_first_and_then_what_a_word_is_worth(vocabulary, capsys):
    ngrams, bleu, asked = added(vocabulary, lambda setting: setting in ((0.5, 2.0), (0.5, 2.5)))
    assert (float(ngrams.weight), float(ngrams.bonus)) == (0.5, 2.5) and bleu == pytest.approx(100)
    assert ngrams.order == 3
    expected = [None, *((weight, weight * RATIOS[0]) for weight in WEIGHTS), *((0.5, 0.5 * r) for r in RATIOS[1:])]
    assert list(dict.fromkeys(asked)) == expected
    assert "3-grams: 100.00 BLEU on the validation set, weight 0.5, 2.5 for a word." in capsys.readouterr().out


def test_a_model_that_is_better_without_gets_none(vocabulary, capsys):
    ngrams, bleu, asked = added(vocabulary, lambda setting: setting is None)
    assert ngrams is None and bleu == pytest.approx(100)
    assert len(set(asked)) == 1 + len(WEIGHTS)
    assert "3-grams would not translate better: 100.00 BLEU" in capsys.readouterr().out


def test_of_many_sentences_some_of_all_parts_count(vocabulary, monkeypatch):
    monkeypatch.setattr(module, "MOST", 3)
    pairs, search = Pairs(*([each for each in side for _ in range(2)] for side in PAIRS)), None

    def make_search(model):
        nonlocal search
        search = Search(model, vocabulary, lambda setting: False)
        return search

    add_ngrams(types.SimpleNamespace(ngrams=None), make_search, vocabulary, PAIRS.targets, pairs, 3, 64)
    assert search.read == {tuple(row) for row in vocabulary.encode(PAIRS.sources)}
