"""A packed trie, against a dictionary."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vq_keras.double_array import EMPTY, ROOT, pack


def levels_of(words, letters):
    """The levels of the trie of some words and of all letters, and the node of each beginning of a word."""
    levels, numbers = [(np.zeros(letters, "int64"), np.arange(letters))], {(each,): each for each in range(letters)}
    for depth in range(2, max(map(len, words), default=1) + 1):
        nodes = sorted({(numbers[word[: depth - 1]], word[depth - 1]) for word in words if len(word) >= depth})
        levels.append(tuple(np.array(column) for column in zip(*nodes, strict=True)))
        places = {node: place for place, node in enumerate(nodes)}
        for word in words:
            if len(word) >= depth:
                numbers[word[:depth]] = places[numbers[word[: depth - 1]], word[depth - 1]]
    return levels, numbers


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_all_children_are_found_and_no_others(data):
    letters = data.draw(st.integers(1, 40))
    word = st.lists(st.integers(0, letters - 1), min_size=1, max_size=4).map(tuple)
    levels, numbers = levels_of(data.draw(st.lists(word, max_size=60)), letters)
    parent, base, places = pack(levels)
    at = {beginning: int(places[len(beginning) - 1][number]) for beginning, number in numbers.items()}
    assert len(set(at.values())) == len(at) == np.count_nonzero(parent != EMPTY)
    for beginning, place in at.items():
        assert len(beginning) > 1 or (place, parent[place]) == (beginning[0], ROOT)
        for letter in range(letters):
            child = base[place] + letter
            is_there = parent[child] == place
            assert is_there == ((*beginning, letter) in at)
            assert not is_there or child == at[*beginning, letter]


def test_a_wide_trie_is_packed_closely():
    rng = np.random.default_rng(0)
    words = {tuple(rng.integers(0, 300, 3).tolist()) for _ in range(20_000)}
    levels, numbers = levels_of(sorted(words), 300)
    parent, base, _ = pack(levels)
    assert len(parent) < 2 * len(numbers)
    assert base.min() >= 0 and base.max() + 300 <= len(parent)
