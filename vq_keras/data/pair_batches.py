"""Batches of sentence pairs as ids, each of pairs of about one length.

As with images, the order is decided in numpy, so that it is the same on every backend and after an interruption.
"""

import dataclasses

import numpy as np

from vq_keras.data.batching import check_numbers, pipeline
from vq_keras.data.bucket_order import BucketOrder
from vq_keras.data.length_buckets import Bucket, length_buckets
from vq_keras.data.translation_data import Pairs
from vq_keras.data.vocabulary import PAD, Vocabulary
from vq_keras.errors import InputError

_NUM_BUCKETS = 8
# Ways in which each source is divided into subwords under dropout: drawn once, so that batches stay a function of the
# step alone, and all held in memory.
_SEGMENTATIONS = 10


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedPairs:
    """Sentence pairs as ids.

    Args:
        sources: for each pair int32 (length,), ending in EOS.
        targets: the same.
        num_dropped: how many of those that were to be encoded are missing because they were too long.
        fertilities: for each source int32 (length,), how many tokens of the target each of its tokens stands for, as
            `Lexicon.with_fertilities` counts them; None where no model asks for them.
    """

    sources: list[np.ndarray]
    targets: list[np.ndarray]
    num_dropped: int
    fertilities: list[np.ndarray] | None = None


def encode_pairs(
    vocabulary: Vocabulary,
    pairs: Pairs,
    max_length: int | None = None,
    subword_dropout: float = 0.0,
    seed: int = 0,
) -> EncodedPairs:
    """Turns sentence pairs into ids.

    With `subword_dropout` each pair is there ten times, once as usual and nine times with its source divided into other
    subwords, so that their pieces are learned, too (Provilkov et al. 2020, "BPE-Dropout"). That paper divides targets
    as well; a model of all words at once would have to hedge between ways to write one word.

    Args:
        vocabulary: of both sides.
        pairs: the sentences.
        max_length: pairs with more ids than this on a side, EOS among them, are left out; None keeps all, as a test
            set should.
        subword_dropout: probability with which a merge of two pieces of a source is passed over; 0.1 in that paper.
        seed: of those.

    Returns:
        The ids, and the number of pairs that were left out.

    Raises:
        InputError: no pair is short enough.

    Example:
        >>> pairs = Pairs(["two books", "two houses"], ["zwei Bücher", "zwei Häuser"])
        >>> encoded = encode_pairs(Vocabulary.train(pairs, size=290), pairs, max_length=50)
        >>> len(encoded.sources), encoded.num_dropped
        (2, 0)
    """
    sources, targets = vocabulary.encode(pairs.sources), vocabulary.encode(pairs.targets)
    kept = range(len(sources))
    if max_length is not None:
        kept = [i for i in kept if max(len(sources[i]), len(targets[i])) <= max_length]
    if not kept:
        raise InputError(f"None of the {len(sources):,} pairs has at most {max_length} ids a side: raise max_length.")
    num_dropped = len(sources) - len(kept)
    sources, targets = ([rows[i] for i in kept] for rows in (sources, targets))
    if not subword_dropout:
        return EncodedPairs(sources, targets, num_dropped)
    texts, all_sources = [pairs.sources[i] for i in kept], list(sources)
    for part in np.random.SeedSequence(seed).generate_state(_SEGMENTATIONS - 1):
        found = vocabulary.encode(texts, subword_dropout, int(part))
        # More and smaller pieces may be too many.
        all_sources += [
            usual if max_length is not None and len(row) > max_length else row
            for row, usual in zip(found, sources, strict=True)
        ]
    return EncodedPairs(all_sources, _SEGMENTATIONS * targets, num_dropped)


def training_batches(
    pairs: EncodedPairs,
    tokens_per_batch: int,
    seed: int,
    start_step: int = 0,
    num_buckets: int = _NUM_BUCKETS,
    target_multiple: int = 8,
):
    """Batches for training, for ever, in few shapes.

    Pairs of about one length share a bucket, with one shape and one batch size: as many pairs as their tokens allow,
    counting for each the longer side as it is padded. Epoch e of a bucket is a random order of its pairs, a function
    of (seed, e) alone; epochs follow one another without a seam, so every batch is full and no pair is left out. The
    batches that begin in epoch e, of all buckets, come in a random order too.

    Args:
        pairs: from `encode_pairs`.
        tokens_per_batch: padded tokens of a batch at most, of sources or targets, whichever is longer.
        seed: decides the order.
        start_step: the first step wanted, to continue a run. From there on the batches are those of a run from step
            0, and only the orders of the epochs that the step touches are drawn to get there.
        num_buckets: shapes at most. More pad less (Multi30k: 19 % of all tokens with 6, 17 % with 8, 16 % with 10)
            and take longer to compile.
        target_multiple: what the targets' padded lengths are multiples of; the latents of a model that halves them
            n times need 2**n.

    Returns:
        On the TensorFlow backend a `tf.data.Dataset` that prefetches, else a `keras.utils.PyDataset`. Both iterate
        to the same {"source": int32 (batch, source_length), "target": int32 (batch, target_length)}, each row ending
        in EOS and padded with 0, and "fertility", shaped like the source, where pairs have fertilities. Keras's `fit`
        takes both, with `steps_per_epoch`.

    Raises:
        InputError: a number is out of range, or a batch cannot hold one pair of the longest.

    Example:
        >>> lengths = np.random.default_rng(0).integers(2, 30, 1000)
        >>> rows = [np.ones(length, np.int32) for length in lengths]
        >>> batches = training_batches(EncodedPairs(rows, rows, 0), tokens_per_batch=512, seed=0)
        >>> sorted(next(iter(batches)))
        ['source', 'target']
    """
    check_numbers(seed=(seed, 0), start_step=(start_step, 0))
    buckets = _buckets(pairs, tokens_per_batch, num_buckets, target_multiple)
    order = BucketOrder([bucket.pairs for bucket in buckets], [_batch_size(b, tokens_per_batch) for b in buckets], seed)

    def batch(index):
        bucket, chosen = order.step(start_step + index)
        return _padded_batch(pairs, buckets[bucket], chosen)

    return pipeline(batch, None, _signature(pairs))


def evaluation_batches(pairs: EncodedPairs, tokens_per_batch: int, target_multiple: int = 8):
    """Batches for evaluation: every pair once, the short ones first.

    Args:
        pairs: from `encode_pairs`.
        tokens_per_batch: as for `training_batches`; a bucket's last batch holds what is left.
        target_multiple: as for `training_batches`.

    Returns:
        As `training_batches`, but finite.

    Raises:
        InputError: as `training_batches`.

    Example:
        >>> rows = [np.ones(length, np.int32) for length in (20, 3, 4)]
        >>> pairs = EncodedPairs(rows, rows, 0)
        >>> [batch["target"].shape for batch in evaluation_batches(pairs, tokens_per_batch=32)]
        [(2, 8), (1, 24)]
    """
    batches = []
    for bucket in _buckets(pairs, tokens_per_batch, _NUM_BUCKETS, target_multiple):
        size = _batch_size(bucket, tokens_per_batch)
        batches += [(bucket, bucket.pairs[start : start + size]) for start in range(0, len(bucket.pairs), size)]

    def batch(index):
        bucket, chosen = batches[index]
        return _padded_batch(pairs, bucket, chosen)

    return pipeline(batch, len(batches), _signature(pairs))


def _signature(pairs: EncodedPairs) -> dict[str, tuple[tuple, type]]:
    names = ("source", "target") if pairs.fertilities is None else ("source", "target", "fertility")
    return dict.fromkeys(names, ((None, None), np.int32))


def _buckets(pairs: EncodedPairs, tokens_per_batch: int, num_buckets: int, target_multiple: int) -> list[Bucket]:
    check_numbers(num_buckets=(num_buckets, 1), target_multiple=(target_multiple, 1))
    lengths = (np.array([len(row) for row in rows]) for rows in (pairs.sources, pairs.targets))
    buckets = length_buckets(*lengths, num_buckets, target_multiple)
    longest = max(max(bucket.source_length, bucket.target_length) for bucket in buckets)
    if tokens_per_batch < longest:
        raise InputError(
            f"A batch of {tokens_per_batch} tokens cannot hold one of the longest pairs, padded to {longest}: "
            "take more tokens a batch, or a lower max_length."
        )
    return buckets


def _batch_size(bucket: Bucket, tokens_per_batch: int) -> int:
    return tokens_per_batch // max(bucket.source_length, bucket.target_length)


def _padded_batch(pairs: EncodedPairs, bucket: Bucket, chosen: np.ndarray) -> dict[str, np.ndarray]:
    batch = {
        "source": _padded([pairs.sources[i] for i in chosen], bucket.source_length),
        "target": _padded([pairs.targets[i] for i in chosen], bucket.target_length),
    }
    if pairs.fertilities is not None:
        batch["fertility"] = _padded([pairs.fertilities[i] for i in chosen], bucket.source_length)
    return batch


def _padded(rows: list[np.ndarray], length: int) -> np.ndarray:
    padded = np.full((len(rows), length), PAD, np.int32)
    for row, ids in zip(padded, rows, strict=True):
        row[: len(ids)] = ids
    return padded
