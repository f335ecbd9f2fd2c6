import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from vq_keras.data.length_buckets import length_buckets

LENGTHS = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=1, max_size=60)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(lengths=LENGTHS, num_buckets=st.integers(1, 9), target_multiple=st.sampled_from([1, 4, 8, 16]))
def test_every_pair_is_in_one_bucket_that_holds_it(lengths, num_buckets, target_multiple):
    sources, targets = np.array(lengths).T
    buckets = length_buckets(sources, targets, num_buckets, target_multiple)
    assert 1 <= len(buckets) <= num_buckets
    assert sorted(np.concatenate([bucket.pairs for bucket in buckets])) == list(range(len(lengths)))
    for bucket in buckets:
        assert list(bucket.pairs) == sorted(bucket.pairs)
        assert bucket.source_length % 4 == 0 and bucket.target_length % target_multiple == 0
        # Steps of the grid grow to a tenth of the length, so a shape is hardly larger than its longest pair.
        for padded, step, longest in [
            (bucket.source_length, 4, sources[bucket.pairs].max()),
            (bucket.target_length, target_multiple, targets[bucket.pairs].max()),
        ]:
            assert longest <= padded < 1.1 * longest + 2 * step
        assert bucket.source_length < sources.max() + 4 and bucket.target_length < targets.max() + target_multiple
    shapes = [bucket[:2] for bucket in buckets]
    assert shapes == sorted(set(shapes))


def test_with_room_for_all_shapes_each_pair_has_the_smallest():
    sources, targets = np.array([1, 4, 5, 9, 40, 41, 45]), np.array([8, 8, 8, 3, 41, 80, 81])
    buckets = length_buckets(sources, targets, 10, 8)
    # After 40 the sources' grid goes on with 44, then with 49 raised to 52, of which the longest needs 48; after 80 the
    # targets' with 88.
    assert [(b.source_length, b.target_length, b.pairs.tolist()) for b in buckets] == [
        (4, 8, [0, 1]),
        (8, 8, [2]),
        (12, 8, [3]),
        (40, 48, [4]),
        (44, 80, [5]),
        (48, 88, [6]),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_merging_pads_hardly_more_than_the_best_two_shapes(seed):
    """The best of all pairs of shapes, by trying them; one shape has to be the largest of both sides."""
    random = np.random.default_rng(seed)
    sources = random.integers(1, 30, 200)
    targets = np.clip(sources + random.integers(-6, 7, 200), 1, None)
    largest = np.array([-(-sources.max() // 4) * 4, -(-targets.max() // 8) * 8])
    best = min(
        np.where((sources <= s) & (targets <= t), s + t, largest.sum()).sum()
        for s, t in itertools.product(range(4, 33, 4), range(8, 41, 8))
    )
    buckets = length_buckets(sources, targets, 2, 8)
    got = sum((b.source_length + b.target_length) * len(b.pairs) for b in buckets)
    assert best <= got <= 1.1 * best


def test_pairs_of_any_length_find_few_shapes():
    random = np.random.default_rng(0)
    # As in news: 28 tokens on average, and a few hundred in the longest.
    sources = np.clip(random.lognormal(3.2, 0.55, 200_000), 1, 256).astype(int)
    targets = np.clip(sources * random.lognormal(0, 0.25, 200_000), 1, 256).astype(int)
    buckets = length_buckets(sources, targets, 12, 8)
    padded = sum((b.source_length + b.target_length) * len(b.pairs) for b in buckets)
    assert 1 - (sources.sum() + targets.sum()) / padded < 0.22
