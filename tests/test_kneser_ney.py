"""N-gram probabilities, against their definition in plain Python."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from backing_off import log_prob_of, random_sentences
from hypothesis import given, settings
from hypothesis import strategies as st

from vq_keras.errors import InputError
from vq_keras.kneser_ney import kneser_ney

SIZE = 10


def by_definition(sentences, order):
    """p(word | history) of interpolated Kneser-Ney smoothing, nothing left out."""
    rows = [(1, *row) for row in sentences]
    occurrences = Counter(
        row[i - n + 1 : i + 1]
        for row in rows
        for n in range(1, order + 1)
        for i in range(1, len(row))
        if i - n + 1 >= 0
    )
    before = defaultdict(set)
    for gram in occurrences:
        before[gram[1:]].add(gram[0])
    beginnings = {row[:n] for row in rows for n in range(2, order + 1)}

    def count(gram):
        raw = len(gram) == order or gram in beginnings
        return occurrences[gram] if raw else len(before[gram])

    counts, discounts = defaultdict(dict), {}
    for n in range(1, order + 1):
        numbers = Counter()
        for gram in (gram for gram in occurrences if len(gram) == n):
            counts[gram[:-1]][gram[-1]] = count(gram)
            numbers[count(gram)] += 1
        discounts[n] = numbers[1] / (numbers[1] + 2 * numbers[2]) if numbers[1] and numbers[2] else 0.5

    def probability(history, word):
        lower = probability(history[1:], word) if history else 1 / SIZE
        if history not in counts:
            return lower
        seen, discount = counts[history], discounts[len(history) + 1]
        own = max(seen.get(word, 0) - discount, 0)
        return (own + discount * len(seen) * lower) / sum(seen.values())

    return probability, occurrences


@pytest.mark.parametrize("order", [2, 3, 4])
def test_probabilities_of_what_was_seen_are_those_of_the_definition(order):
    sentences = random_sentences(80)
    probability, occurrences = by_definition(sentences, order)
    orders = kneser_ney(sentences, SIZE, order)
    words = [(int(word),) for word in orders[0].word]
    for n, each in enumerate(orders, 1):
        if n > 1:
            words = [(*words[prefix], int(word)) for prefix, word in zip(each.prefix, each.word, strict=True)]
            rare = 2 if n > 2 else 1
            assert set(words) == {gram for gram, number in occurrences.items() if len(gram) == n and number >= rare}
        expected = [math.log(probability(gram[:-1], gram[-1])) for gram in words]
        np.testing.assert_allclose(each.log_prob, expected, rtol=1e-9)
        lower = [math.log(probability(gram[1:-1], gram[-1])) if n > 1 else 0.0 for gram in words]
        np.testing.assert_allclose(each.gain, np.subtract(expected, lower), atol=1e-9)


def test_two_words_by_hand():
    # Seen once after the beginning (1) and never elsewhere: 5, 6; twice: the end, after 5 and after 6. So D is
    # 4 / (4 + 0), which would leave nothing, and 0.5 stands for it; for single words 2 / (2 + 2 * 1).
    first, second = kneser_ney([[5, 1], [6, 1]], vocabulary_size=8, order=2)
    single = 0.5 / 4 + 0.5 * 3 / 4 / 8
    assert first.log_prob[5] == pytest.approx(math.log(single))
    assert first.log_prob[7] == pytest.approx(math.log(0.5 * 3 / 4 / 8))
    assert second.word.tolist() == [5, 6, 1, 1] and second.prefix.tolist() == [1, 1, 5, 6]
    assert second.log_prob[0] == pytest.approx(math.log(0.5 / 2 + 0.5 * 2 / 2 * single))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 5), st.integers(1, 30), st.integers(0, 1000), st.lists(st.integers(0, SIZE - 1), max_size=6))
def test_probabilities_add_up_to_one_after_any_words(order, number, seed, history):
    log_prob = log_prob_of(kneser_ney(random_sentences(number, seed), SIZE, order))
    total = sum(math.exp(log_prob(tuple(history), word)) for word in range(SIZE))
    assert total == pytest.approx(1, abs=1e-9)


def test_wrong_arguments_are_refused():
    with pytest.raises(InputError, match="the order of the n-grams is 1; give at least 2"):
        kneser_ney([[5, 1]], 8, 1)
    with pytest.raises(InputError, match="no text to count n-grams in"):
        kneser_ney([], 8, 2)
