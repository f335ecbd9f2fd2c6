"""Word alignment: expectation maximisation in plain Python, a language with a known dictionary, fertilities."""

import collections
import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from vq_keras.data.alignment import TENSION, Lexicon
from vq_keras.data.pair_batches import EncodedPairs


def encoded(*pairs):
    """Pairs of lists of ids without EOS."""
    sides = zip(*pairs, strict=True)
    return EncodedPairs(*([np.array([*row, 1], np.int32) for row in side] for side in sides), num_dropped=0)


def prior(i, n, j, m):
    return math.exp(-TENSION * abs((i + 0.5) / n - (j + 0.5) / m))


def test_probabilities_are_those_of_plain_expectation_maximisation():
    pairs = [([5, 6], [15, 16, 16]), ([6, 7, 6], [16, 17]), ([7], [17, 18]), ([5, 7], [17]), ([9, 9], [])]
    table = collections.defaultdict(lambda: 1.0)
    for _ in range(3):
        counts = collections.Counter()
        for source, target in pairs:
            for j, f in enumerate(target):
                weights = [table[e, f] * prior(i, len(source), j, len(target)) for i, e in enumerate(source)]
                for e, weight in zip(source, weights, strict=True):
                    counts[e, f] += weight / sum(weights)
        totals = collections.Counter()
        for (e, _), count in counts.items():
            totals[e] += count
        table = {(e, f): count / totals[e] for (e, f), count in counts.items()}
    lexicon = Lexicon.learn(encoded(*pairs), iterations=3)
    found = {(key >> 32, key % 2**32): p for key, p in zip(lexicon.keys.tolist(), lexicon.probabilities, strict=True)}
    assert found == pytest.approx(table, rel=1e-12)


DICTIONARY = {e: [100 + 3 * e + k for k in range(e % 4)] for e in range(3, 43)}


def sentences(number, seed):
    """Pairs of a language whose word e has e mod 4 words in the other, with a word now and then out of its place."""
    rng = np.random.default_rng(seed)
    pairs, fertilities = [], []
    for _ in range(number):
        source = rng.permutation(40)[: rng.integers(1, 9)] + 3
        order = np.argsort(np.arange(len(source)) + rng.uniform(0, 1.5, len(source)))
        pairs.append((source, [f for i in order for f in DICTIONARY[source[i]]]))
        fertilities.append([*source % 4, 1])
    return encoded(*pairs), fertilities


def share_right(lexicon, pairs, fertilities):
    found = np.concatenate(lexicon.with_fertilities(pairs).fertilities)
    return np.mean(found == np.concatenate(fertilities))


def test_a_known_dictionary_is_found():
    train, test = sentences(1000, seed=0), sentences(200, seed=1)
    diagonal, lexicon = Lexicon.learn(train[0], iterations=0), Lexicon.learn(train[0])
    # Words without a translation are the hard ones: they meet all others as often as those that have one.
    assert share_right(lexicon, *train) > 0.96
    assert share_right(lexicon, *test) > 0.95
    assert share_right(diagonal, *train) < 0.6


def test_unknown_tokens_are_aligned_along_the_diagonal():
    lexicon = Lexicon.learn(encoded(([5], [6])))
    assert (lexicon.keys.tolist(), lexicon.probabilities.tolist()) == ([(5 << 32) + 6], [1.0])
    pairs = lexicon.with_fertilities(encoded(([7, 8, 9], [10, 10, 11, 11, 12, 12]), ([7, 5], [6, 6]), ([], [3, 4])))
    assert [row.tolist() for row in pairs.fertilities] == [[2, 2, 2, 1], [0, 2, 1], [3]]


ids = st.lists(st.integers(3, 9), max_size=7)


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(st.lists(st.tuples(ids, ids), min_size=1, max_size=8))
def test_fertilities_add_up_to_the_targets(pairs):
    pairs = encoded(([3], [4]), *pairs)
    found = Lexicon.learn(pairs, iterations=2).with_fertilities(pairs)
    assert (found.sources, found.targets, found.num_dropped) == (pairs.sources, pairs.targets, 0)
    for source, target, row in zip(found.sources, found.targets, found.fertilities, strict=True):
        assert row.dtype == np.int32 and row.shape == source.shape
        assert row.sum() == len(target) and (row >= 0).all()
