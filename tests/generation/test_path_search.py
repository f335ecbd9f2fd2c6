"""The search for a path that a language model likes, against all paths one by one."""

import itertools
import sys

import keras
import numpy as np
import pytest
from backing_off import log_prob_of
from compiled import compiled, numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from vq_keras import generation
from vq_keras.kneser_ney import kneser_ney
from vq_keras.layers import NGrams

LABELS, END = 5, 1
TEXT = [[int(word) for word in str(row)] for row in [23, 3, 24, 342, 2, 4423, 432, 3, 22, 34, 4, 243]]
TEXT = [[*row, END] for row in TEXT]


def search(logits, slots, order, weight, bonus):
    ngrams = NGrams.fit(TEXT, LABELS, order)
    present = np.arange(logits.shape[1]) < np.asarray(slots)[:, None]

    def found(logits, present):
        return generation.path_search(logits, present, END, ngrams, ngrams.beginning(), weight, bonus)

    labels, log_probs = compiled(found)(logits.astype("float32"), present)
    return np.asarray(labels), numpy(log_probs)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def best_of_all(log_p, log_prob, weight, bonus):
    """The best path's score, its sequence and its log probability."""
    best = (-np.inf, [], 0.0)
    for path in itertools.product(range(LABELS), repeat=len(log_p)):
        total, told, sequence, before = 0.0, 0.0, [], 0
        for row, label in zip(log_p, path, strict=True):
            total += row[label]
            if label not in (0, before):
                told += weight * log_prob((END, *sequence), label) + bonus
                sequence.append(label)
                if label == END:
                    break
            before = label
        best = max(best, (total + told, sequence, total), key=lambda each: each[0])
    return best


@pytest.mark.parametrize(("order", "weight", "bonus"), [(2, 0.7, 0.9), (3, 1.5, 3.0), (3, 0.3, 0.0)])
def test_with_beams_enough_it_is_the_best_of_all_paths(monkeypatch, order, weight, bonus):
    module = sys.modules["vq_keras.generation.path_search"]
    monkeypatch.setattr(module, "BEAMS", 40)
    monkeypatch.setattr(module, "LABELS", LABELS)
    rng = np.random.default_rng(0)
    logits, slots = 1.5 * rng.normal(size=(24, 5, LABELS)), rng.integers(0, 6, 24)
    labels, log_probs = search(logits, slots, order, weight, bonus)
    log_prob = log_prob_of(kneser_ney(TEXT, LABELS, order))
    lengths = set()
    for row, number, found, score in zip(log_softmax(logits), slots, labels, log_probs, strict=True):
        _, sequence, expected = best_of_all(row[:number], log_prob, weight, bonus)
        np.testing.assert_array_equal(found, [*sequence, *[0] * (5 - len(sequence))])
        assert score == pytest.approx(expected, abs=1e-4)  # Sums of five float32 terms.
        lengths.add(len(sequence))
    assert len(lengths) > 3


def test_few_beams_seldom_miss_it():
    rng = np.random.default_rng(1)
    logits = 2 * rng.normal(size=(40, 6, LABELS))
    labels, _ = search(logits, [6] * 40, 3, 1.0, 2.0)
    log_prob = log_prob_of(kneser_ney(TEXT, LABELS, 3))
    found = [[label for label in row if label] for row in labels.tolist()]
    expected = [best_of_all(row, log_prob, 1.0, 2.0)[1] for row in log_softmax(logits)]
    assert sum(one == other for one, other in zip(found, expected, strict=True)) >= 36


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="a compilation for each example")
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 9))
def test_without_a_weight_it_is_the_best_path(seed, batch, number):
    rng = np.random.default_rng(seed)
    logits, slots = 3 * rng.normal(size=(batch, number, LABELS)), rng.integers(0, number + 1, batch)
    logits[..., END] = -30.0  # Behind its end a path is free, so that an early one beats what is likelier slot by slot.
    labels, log_probs = search(logits, slots, 2, 0.0, 0.0)
    present = np.arange(number) < slots[:, None]
    expected, _ = generation.best_path(logits.astype("float32"), present, END)
    for row, found, slot, other, score in zip(
        log_softmax(logits), labels, slots, np.asarray(expected), log_probs, strict=True
    ):
        np.testing.assert_array_equal(found, other)
        assert score == pytest.approx(row[:slot].max(-1).sum(), abs=1e-4)


def test_a_sentence_is_read_alike_in_any_company():
    rng = np.random.default_rng(3)
    logits, slots = 2 * rng.normal(size=(6, 9, LABELS)), [9, 4, 0, 7, 1, 9]
    labels, log_probs = search(logits, slots, 3, 1.0, 2.0)
    for row, number, together, score in zip(logits, slots, labels, log_probs, strict=True):
        width = max(number, 1)
        alone, its = search(row[None, :width], [number], 3, 1.0, 2.0)
        np.testing.assert_array_equal(together, np.pad(alone[0], (0, 9 - width)))
        assert its[0] == pytest.approx(score, abs=1e-4)
