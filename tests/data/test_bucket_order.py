import hypothesis
import hypothesis.strategies as st
import numpy as np

from vq_keras.data.bucket_order import BucketOrder

BUCKETS = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 30)), min_size=1, max_size=4)


def make(sizes, seed):
    """An order over buckets of (number of examples, batch size); examples are numbered through."""
    ends = np.cumsum([length for length, _ in sizes])
    buckets = [np.arange(end - length, end) for end, (length, _) in zip(ends, sizes, strict=True)]
    return BucketOrder(buckets, [size for _, size in sizes], seed)


def steps_before(sizes, epoch):
    """A batch belongs to the epoch in which its first example lies: counted one by one."""
    count = 0
    for length, size in sizes:
        number = 0
        while number * size < epoch * length:
            number += 1
        count += number
    return count


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(sizes=BUCKETS, seed=st.integers(0, 2**40), num_epochs=st.integers(1, 4))
def test_every_epoch_holds_every_example_once(sizes, seed, num_epochs):
    order = make(sizes, seed)
    seen = [{} for _ in sizes]
    for step in range(steps_before(sizes, num_epochs)):
        bucket, examples = order.step(step)
        assert len(examples) == sizes[bucket][1]
        # Where in its bucket's stream a batch lies cannot be seen; so each example's visits are counted.
        for example in examples.tolist():
            seen[bucket][example] = seen[bucket].get(example, 0) + 1
    ends = np.cumsum([length for length, _ in sizes])
    for bucket, (length, size) in enumerate(sizes):
        counts = list(seen[bucket].values())
        assert sorted(seen[bucket]) == list(range(ends[bucket] - length, ends[bucket]))
        # All of every epoch so far, and of the next one the rest of the last batch.
        assert sum(counts) == -(-num_epochs * length // size) * size
        assert min(counts) >= num_epochs and max(counts) - min(counts) <= 1


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(sizes=BUCKETS, seed=st.integers(0, 2**40), start=st.integers(0, 60))
def test_a_step_does_not_depend_on_those_before(sizes, seed, start):
    order = make(sizes, seed)
    run = [order.step(step) for step in range(start + 4)]
    resumed = make(sizes, seed)
    for step in range(start, start + 4):
        bucket, examples = resumed.step(step)
        assert bucket == run[step][0]
        np.testing.assert_array_equal(examples, run[step][1])


def test_a_late_step_draws_the_epochs_it_touches_alone(monkeypatch):
    order = make([(1000, 10), (501, 5)], seed=3)
    seeds = []
    default_rng = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: seeds.append(seed) or default_rng(seed))
    epoch = 10**6
    first = epoch * 100 + -(-epoch * 501 // 5)
    for step in range(first, first + 200):  # 100 batches of the one, 100 or 101 of the other
        order.step(step)
    assert seeds[0] == [3, epoch] and seeds.count([3, epoch]) == 1
    assert {tuple(seed) for seed in seeds} <= {
        (3, epoch), (3, epoch, 1), (3, epoch, 2), (3, epoch + 1, 2), (3, epoch - 1, 2), (3, epoch + 1)
    }  # fmt: skip
    assert len(seeds) <= 5


def test_seeds_epochs_and_buckets_are_mixed():
    def run(seed):
        order = make([(400, 4), (400, 4)], seed)
        buckets, examples = zip(*(order.step(step) for step in range(400)), strict=True)
        return np.array(buckets), np.array(examples)

    (buckets, examples), (other_buckets, other_examples) = run(0), run(1)
    # 200 batches an epoch in a random order: the same bucket at a step half of the time, with a deviation of 7.
    assert 65 < (buckets[:200] == buckets[200:]).sum() < 135
    assert 65 < (buckets[:200] == other_buckets[:200]).sum() < 135
    first = [
        epoch[buckets[part] == 0].ravel()
        for epoch, part in [(examples[:200], slice(200)), (examples[200:], slice(200, 400))]
    ]
    # Two random orders of 400 agree in one place on average.
    assert (first[0] == first[1]).sum() < 10
    assert (first[0] == other_examples[:200][other_buckets[:200] == 0].ravel()).sum() < 10
