"""Sentence pairs of about one length together, in a few shapes of batch."""

from typing import NamedTuple

import numpy as np

# No model asks for multiples in sources; steps of 4 pad no more than steps of 1 once shapes are merged.
_SOURCE_STEP = 4


class Bucket(NamedTuple):
    """Pairs that are padded to one shape: `pairs` are their numbers, lengths are in tokens."""

    source_length: int
    target_length: int
    pairs: np.ndarray


def length_buckets(
    source_lengths: np.ndarray, target_lengths: np.ndarray, num_buckets: int, target_multiple: int
) -> list[Bucket]:
    """Parts pairs by length so that little is padded.

    Every pair begins in the smallest shape that holds it, on a grid whose steps grow to a tenth of the length. Then,
    until `num_buckets` are left, those two are merged, into one that holds both, that adds the fewest tokens of
    padding. So the shapes follow the text: short captions get other ones than news.

    Args:
        source_lengths: (num_pairs,) tokens of each source.
        target_lengths: (num_pairs,) tokens of each target.
        num_buckets: shapes at most.
        target_multiple: what the targets' padded lengths are multiples of.

    Returns:
        The buckets, by growing shape; each pair is in one of them, in order.

    Example:
        >>> buckets = length_buckets(np.array([3, 4, 30]), np.array([5, 8, 28]), num_buckets=2, target_multiple=8)
        >>> [(bucket.source_length, bucket.target_length, bucket.pairs.tolist()) for bucket in buckets]
        [(4, 8, [0, 1]), (32, 32, [2])]
    """
    padded = np.stack([_padded(source_lengths, _SOURCE_STEP), _padded(target_lengths, target_multiple)], axis=1)
    shapes, first_shape, counts = np.unique(padded, axis=0, return_inverse=True, return_counts=True)
    bucket = np.arange(len(shapes))  # of each first shape
    while len(shapes) > num_buckets:
        joined = np.maximum(shapes[:, None], shapes)
        padding = counts[:, None] * (joined - shapes[:, None]).sum(-1).astype(float)
        padding += padding.T
        np.fill_diagonal(padding, np.inf)
        kept, gone = sorted(np.unravel_index(padding.argmin(), padding.shape))
        shapes[kept] = joined[kept, gone]
        counts[kept] += counts[gone]
        shapes, counts = np.delete(shapes, gone, axis=0), np.delete(counts, gone)
        bucket[bucket == gone] = kept
        bucket[bucket > gone] -= 1
    bucket_of_pair = bucket[first_shape.reshape(-1)]
    buckets = [Bucket(*shape.tolist(), np.flatnonzero(bucket_of_pair == i)) for i, shape in enumerate(shapes)]
    return sorted(buckets, key=lambda bucket: bucket[:2])


def _padded(lengths: np.ndarray, step: int) -> np.ndarray:
    """Each length raised to one of step, 2 step, ..., growing by a tenth where that is more than a step.

    The last of them is the longest length, raised to a multiple of the step: a model's maximum is not exceeded by more.
    """
    last = -(-lengths.max() // step) * step
    grid = [step]
    while grid[-1] < last:
        grid.append(min(-(-11 * grid[-1] // (10 * step)) * step, last))
    return np.array(grid)[np.searchsorted(grid, lengths)]
