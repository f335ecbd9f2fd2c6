import dataclasses
import itertools

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest

from vq_keras.data.pair_batches import EncodedPairs, encode_pairs, evaluation_batches, training_batches
from vq_keras.data.translation_data import Pairs
from vq_keras.errors import InputError


def numbered_pairs(lengths):
    """Pairs of those (source, target) lengths, EOS included; pair i is made of ids 10 + 2i and 11 + 2i."""
    rows = [
        [np.array([10 + 2 * i + side] * (length - 1) + [1], np.int32) for i, length in enumerate(of_side)]
        for side, of_side in enumerate(zip(*lengths, strict=True))
    ]
    return EncodedPairs(*rows, num_dropped=0)


def random_pairs(number, seed=0, longest=40):
    random = np.random.default_rng(seed)
    sources = np.clip(random.lognormal(2.5, 0.5, number), 2, longest).astype(int)
    targets = np.clip(sources + random.integers(-4, 5, number), 2, longest)
    return numbered_pairs(list(zip(sources.tolist(), targets.tolist(), strict=True)))


def take(pipeline, number=None):
    return [{name: np.asarray(array) for name, array in batch.items()} for batch in itertools.islice(pipeline, number)]


def pairs_in(batch):
    """The numbers of the pairs in a batch and their lengths; each row is checked to be whole."""
    numbers, lengths = [], []
    for rows in zip(batch["source"], batch["target"], strict=True):
        number = (rows[0][0] - 10) // 2
        ends = []
        for side, row in enumerate(rows):
            ((end,),) = np.nonzero(row == 1)
            assert (row[:end] == 10 + 2 * number + side).all() and (row[end + 1 :] == 0).all()
            ends.append(int(end) + 1)
        numbers.append(int(number))
        lengths.append(tuple(ends))
    return numbers, lengths


def numbers_in(batch):
    return pairs_in(batch)[0]


@hypothesis.settings(deadline=None, max_examples=15)
@hypothesis.given(
    lengths=st.lists(st.tuples(st.integers(2, 50), st.integers(2, 50)), min_size=1, max_size=30),
    tokens=st.integers(56, 400),
    num_buckets=st.integers(1, 5),
    start_step=st.integers(0, 10**9),
)
def test_batches_hold_whole_pairs_within_the_budget(lengths, tokens, num_buckets, start_step):
    pairs = numbered_pairs(lengths)
    shapes = set()
    for batch in take(training_batches(pairs, tokens, 3, start_step, num_buckets), 12):
        assert batch["source"].dtype == batch["target"].dtype == np.int32
        longest = max(batch["source"].shape[1], batch["target"].shape[1])
        assert batch["target"].shape[1] % 8 == 0
        assert len(batch["source"]) == tokens // longest and len(batch["source"]) * longest <= tokens
        numbers, inside = pairs_in(batch)
        assert inside == [lengths[number] for number in numbers]
        shapes.add((batch["source"].shape, batch["target"].shape))
    assert len(shapes) <= num_buckets


def test_an_epoch_holds_every_pair():
    pairs = random_pairs(500)
    batches = take(training_batches(pairs, tokens_per_batch=128, seed=0), 400)
    shapes = {}
    for batch in batches:
        shapes.setdefault(batch["target"].shape + batch["source"].shape, []).extend(numbers_in(batch))
    assert 4 <= len(shapes) <= 8
    assert sorted(set(itertools.chain.from_iterable(shapes.values()))) == list(range(500))
    for numbers in shapes.values():
        # Epochs of 500 pairs are some 60 steps here, so each pair has come several times, and none more often than
        # another of its bucket but for the epoch under way, whose batches are in another order than they are cut.
        counts = np.bincount(numbers)[sorted(set(numbers))]
        assert counts.min() >= 4 and counts.max() - counts.min() <= 2


@pytest.mark.parametrize("start_step", [1, 7, 61, 1000])
def test_a_later_start_gives_the_rest_of_the_same_batches(start_step):
    pairs = random_pairs(200)
    run = take(itertools.islice(training_batches(pairs, 128, seed=5), start_step, None), 6)
    resumed = take(training_batches(pairs, 128, seed=5, start_step=start_step), 6)
    for batch, expected in zip(resumed, run, strict=True):
        for name in ("source", "target"):
            np.testing.assert_array_equal(batch[name], expected[name])
    other = take(training_batches(pairs, 128, seed=6, start_step=start_step), 6)
    assert [numbers_in(batch) for batch in other] != [numbers_in(batch) for batch in run]


def test_the_same_batches_on_every_backend():
    batches = take(training_batches(random_pairs(60), 96, seed=1), 3)
    assert [numbers_in(batch) for batch in batches] == [[36, 59, 10, 22, 54, 15], [6, 49, 43, 6], [23, 2, 55, 53]]


@pytest.mark.parametrize("target_multiple", [1, 8, 16])
def test_targets_are_padded_to_a_multiple(target_multiple):
    for batch in take(training_batches(random_pairs(100), 128, 0, target_multiple=target_multiple), 20):
        assert batch["target"].shape[1] % target_multiple == 0


@hypothesis.settings(deadline=None, max_examples=15)
@hypothesis.given(
    lengths=st.lists(st.tuples(st.integers(2, 50), st.integers(2, 50)), min_size=1, max_size=30),
    tokens=st.integers(56, 400),
)
def test_evaluation_holds_every_pair_once(lengths, tokens):
    pipeline = evaluation_batches(numbered_pairs(lengths), tokens)
    for _ in range(2):
        batches = take(pipeline)
        numbers = [numbers_in(batch) for batch in batches]
        assert sorted(itertools.chain.from_iterable(numbers)) == list(range(len(lengths)))
        for batch in batches:
            assert max(batch["source"].size, batch["target"].size) <= tokens
    shapes = [(batch["source"].shape[1], batch["target"].shape[1]) for batch in batches]
    assert shapes == sorted(shapes)


def test_fertilities_come_with_their_pairs():
    pairs = random_pairs(40)
    # Of pair i, whose source is made of 10 + 2 i.
    pairs = dataclasses.replace(pairs, fertilities=[np.where(row > 1, row + 1, 7) for row in pairs.sources])
    batches = [*take(training_batches(pairs, 96, seed=1), 5), *take(evaluation_batches(pairs, 96))]
    for batch in batches:
        source, fertility = batch["source"], batch["fertility"]
        assert fertility.dtype == np.int32
        np.testing.assert_array_equal(fertility, np.where(source > 1, source + 1, 7 * source))
    assert "fertility" not in take(evaluation_batches(random_pairs(40), 96))[0]


class CharacterVocabulary:
    """Ids of a Vocabulary's kind without SentencePiece: a character each."""

    def encode(self, sentences):
        return [np.array([*map(ord, sentence), 1], np.int32) for sentence in sentences]


def test_long_pairs_are_dropped_and_counted():
    pairs = Pairs(["a", "bbb", "cc", "d"], ["A", "B", "CC", "DDD"])
    encoded = encode_pairs(CharacterVocabulary(), pairs, max_length=3)
    assert [row.tolist() for row in encoded.sources] == [[97, 1], [99, 99, 1]]
    assert [row.tolist() for row in encoded.targets] == [[65, 1], [67, 67, 1]]
    assert encoded.num_dropped == 2
    everything = encode_pairs(CharacterVocabulary(), pairs)
    assert (len(everything.sources), everything.num_dropped) == (4, 0)
    (batch,) = take(evaluation_batches(encoded, 64))
    np.testing.assert_array_equal(batch["source"], [[97, 1, 0, 0], [99, 99, 1, 0]])
    with pytest.raises(InputError, match="None of the 4 pairs has at most 1 ids a side: raise max_length"):
        encode_pairs(CharacterVocabulary(), pairs, max_length=1)


class PairVocabulary(CharacterVocabulary):
    """Takes two letters for one id, but under dropout; remembers what it was asked for."""

    def __init__(self):
        self.asked = []

    def encode(self, texts, dropout=0.0, seed=0):
        self.asked += [(dropout, seed)] if dropout else []
        rows = super().encode(texts)
        return rows if dropout else [np.append(row[:-1:2], 1) for row in rows]


def test_sources_are_there_with_other_subwords_too():
    pairs = Pairs(["abc", "abcdef", "a"], ["A", "B", "C"])
    vocabulary = PairVocabulary()
    encoded = encode_pairs(vocabulary, pairs, max_length=4, subword_dropout=0.1)
    usual, other = [[97, 99, 1], [97, 99, 101, 1], [97, 1]], [97, 98, 99, 1]
    assert [row.tolist() for row in encoded.sources[:3]] == usual
    # The second has too many letters, the third has one way alone.
    assert [row.tolist() for row in encoded.sources[3:]] == 9 * [other, *usual[1:]]
    assert [row.tolist() for row in encoded.targets] == 10 * [[65, 1], [66, 1], [67, 1]]
    assert encoded.num_dropped == 0
    # Each copy is drawn anew, the same again for the same seed.
    assert len(set(vocabulary.asked)) == 9 and {dropout for dropout, _ in vocabulary.asked} == {0.1}
    again, other = PairVocabulary(), PairVocabulary()
    encode_pairs(again, pairs, 4, 0.1, seed=0)
    encode_pairs(other, pairs, 4, 0.1, seed=1)
    assert again.asked == vocabulary.asked and not set(other.asked) & set(vocabulary.asked)


class Recorder(keras.Model):
    """Learns nothing, and remembers the pairs it was trained on."""

    def __init__(self):
        super().__init__()
        self.bias = self.add_weight(shape=(), name="bias")
        self.seen = []

    def call(self, inputs):
        return keras.ops.cast(inputs["source"], "float32") + self.bias

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        self.seen.append({name: keras.ops.convert_to_numpy(array) for name, array in x.items()})
        return keras.ops.mean(y_pred)


@pytest.mark.filterwarnings("error:.*ran out of data")
def test_keras_takes_them():
    model, pairs = Recorder(), random_pairs(50)
    model.compile("sgd", run_eagerly=True)
    model.fit(training_batches(pairs, 96, seed=1), steps_per_epoch=3, epochs=2, shuffle=False, verbose=0)
    expected = take(training_batches(pairs, 96, seed=1), 6)
    for seen, batch in zip(model.seen[-6:], expected, strict=True):
        np.testing.assert_array_equal(seen["target"], batch["target"])


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"tokens_per_batch": 39},
            "A batch of 39 tokens cannot hold one of the longest pairs, padded to 40: take more",
        ),
        ({"num_buckets": 0}, "num_buckets must be 1 or above, but it is 0"),
        ({"target_multiple": 0}, "target_multiple must be 1 or above, but it is 0"),
        ({"seed": -1}, "seed must be 0 or above, but it is -1"),
        ({"start_step": -2}, "start_step must be 0 or above, but it is -2"),
    ],
)
def test_bad_input_is_told_at_once(change, message):
    arguments = {"pairs": numbered_pairs([(3, 3), (38, 38)]), "tokens_per_batch": 40, "seed": 0} | change
    with pytest.raises(InputError, match=message):
        training_batches(**arguments)
