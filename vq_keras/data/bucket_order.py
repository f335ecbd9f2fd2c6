"""The order in which batches are trained whose examples lie in buckets, with a batch size each."""

import bisect
import functools
from collections.abc import Sequence

import numpy as np

from vq_keras.data.batching import end_to_end


class BucketOrder:
    """Which examples of which bucket make each training step.

    Bucket b is a stream of its epochs, n_b examples each in a random order, cut into batches of s_b. Those of its
    batches that begin before epoch e are the first ceil(e n_b / s_b): the number of steps before an epoch, of all
    buckets, is known without drawing any order. The batches that begin in an epoch come in a random order.

    Args:
        buckets: the examples in each.
        batch_sizes: of each.
        seed: of all orders: those of epoch e are a function of (seed, e) alone.

    Example:
        >>> order = BucketOrder([np.array([0, 2, 4]), np.array([1, 3])], batch_sizes=[3, 2], seed=0)
        >>> sorted((bucket, sorted(examples.tolist())) for bucket, examples in map(order.step, range(2)))
        [(0, [0, 2, 4]), (1, [1, 3])]
    """

    def __init__(self, buckets: Sequence[np.ndarray], batch_sizes: Sequence[int], seed: int):
        self._buckets = buckets
        self._sizes = list(zip(map(len, buckets), batch_sizes, strict=True))
        self._seed = seed
        # A step needs the epoch that it is in, and a batch at an epoch's end the next one of its bucket too.
        self._batches_of = functools.lru_cache(maxsize=2)(self._draw_batches)
        self._examples_of = functools.lru_cache(maxsize=2 * len(buckets))(self._draw_examples)

    def step(self, step: int) -> tuple[int, np.ndarray]:
        """The bucket of a step and the examples, (batch_size,); no earlier step is drawn for it."""
        # The first epoch before which some bucket alone has made more steps.
        beyond = min(-(-(step + 1) * size // length) for length, size in self._sizes)
        epoch = bisect.bisect_right(range(beyond), step, key=self._steps_before) - 1
        bucket, number = self._batches_of(epoch)[step - self._steps_before(epoch)].tolist()
        length, size = self._sizes[bucket]
        start = number * size
        return bucket, end_to_end(start, start + size, length, lambda epoch: self._examples_of(bucket, epoch))

    def _batches_before(self, epoch: int) -> list[int]:
        return [-(-epoch * length // size) for length, size in self._sizes]

    def _steps_before(self, epoch: int) -> int:
        return sum(self._batches_before(epoch))

    def _draw_batches(self, epoch: int) -> np.ndarray:
        """(number, 2): bucket and number of each batch that begins in the epoch."""
        ranges = zip(self._batches_before(epoch), self._batches_before(epoch + 1), strict=True)
        batches = [(bucket, number) for bucket, (first, end) in enumerate(ranges) for number in range(first, end)]
        return np.random.default_rng([self._seed, epoch]).permutation(batches)

    def _draw_examples(self, bucket: int, epoch: int) -> np.ndarray:
        return np.random.default_rng([self._seed, epoch, 1 + bucket]).permutation(self._buckets[bucket])
