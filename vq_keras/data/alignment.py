"""Which source token each target token translates: word alignment, learned from the pairs alone."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from vq_keras.data.pair_batches import EncodedPairs

# How fast the prior falls with the distance from the diagonal; where fast_align starts, which goes on to fit it.
TENSION = 4.0
# The probability of two tokens that never met in training: so that where no token of a sentence is known, the
# diagonal decides.
UNSEEN = 1e-9


@dataclasses.dataclass(frozen=True, eq=False)
class Lexicon:
    """How likely a source token is translated by each target token, t(f | e), and the alignments that follow from it.

    Each token of a target (length m) translates one token of its source (length n), and which one depends on no other:

        p(f_j, a_j = i) = t(f_j | e_i) exp(-4 |(i + 1/2) / n - (j + 1/2) / m|) / normaliser over i

    That is IBM model 2 (Brown et al. 1993) with the prior of fast_align (Dyer et al. 2013), which also tells apart
    tokens that occur twice in a sentence. Gu et al. 2018 take their fertilities from fast_align. Left out is what it
    has beyond: the tension is not fitted, there is no prior on t, and no empty source token, since fertilities have to
    account for each target token. EOS translates EOS and nothing else.

    Args:
        keys: int64 (entries,), sorted, e 2^32 + f for each pair of tokens that meet in a sentence pair.
        probabilities: float64 (entries,), t(f | e).

    Example:
        >>> sources, targets = ([5, 1], [6, 5, 1]), ([8, 8, 1], [9, 8, 8, 1])
        >>> pairs = EncodedPairs([*map(np.array, sources)], [*map(np.array, targets)], num_dropped=0)
        >>> Lexicon.learn(pairs).with_fertilities(pairs).fertilities
        [array([2, 1], dtype=int32), array([1, 2, 1], dtype=int32)]
    """

    keys: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def learn(cls, pairs: EncodedPairs, iterations: int = 5) -> "Lexicon":
        """Fits t by expectation maximisation, from all translations being as likely.

        It holds 4 bytes for each two tokens that meet in a pair: 30 MB for 29,000 captions, 10 GB for the millions of
        WMT, of which a part is enough to learn from.

        Args:
            pairs: what to learn from.
            iterations: of the algorithm; five as for model 1 in fast_align.
        """
        groups = []
        for group in _groups(pairs):
            entries, links = np.unique(group.keys, return_inverse=True)
            groups.append((entries, links.reshape(group.keys.shape).astype(np.int32), group.prior))
        keys = np.unique(np.concatenate([entries for entries, _, _ in groups]))
        groups = [(np.searchsorted(keys, entries), links, prior) for entries, links, prior in groups]
        source = keys >> 32
        probabilities = np.ones(len(keys))
        for _ in range(iterations):
            counts = np.zeros(len(keys))
            for entries, links, prior in groups:
                posterior = probabilities[entries][links] * prior
                posterior /= posterior.sum(-1, keepdims=True)
                counts[entries] += np.bincount(links.ravel(), posterior.ravel())
            probabilities = counts / np.bincount(source, counts)[source]
        return cls(keys, probabilities)

    def with_fertilities(self, pairs: EncodedPairs) -> EncodedPairs:
        """The pairs with the fertilities of their likeliest alignments; they need not be those it has learned from."""
        found = [np.array([len(target)], np.int32) for target in pairs.targets]  # Of a source that is EOS alone.
        for group in _groups(pairs):
            places = np.minimum(np.searchsorted(self.keys, group.keys), len(self.keys) - 1)
            known = self.keys[places] == group.keys
            aligned = (np.where(known, self.probabilities[places], UNSEEN) * group.prior).argmax(-1)
            fertilities = (aligned[..., None] == np.arange(group.keys.shape[2])).sum(1, dtype=np.int32)
            for i, row in zip(group.pairs, fertilities, strict=True):
                found[i] = np.append(row, np.int32(1))
        return dataclasses.replace(pairs, fertilities=found)


@dataclasses.dataclass(frozen=True, eq=False)
class _Group:
    """Pairs of one shape, without their EOS: which, (pairs, m, n) keys of a `Lexicon`, (m, n) prior."""

    pairs: np.ndarray
    keys: np.ndarray
    prior: np.ndarray


def _groups(pairs: EncodedPairs) -> Iterator[_Group]:
    """All pairs but those whose source is EOS alone."""
    shapes = np.array([(len(s) - 1, len(t) - 1) for s, t in zip(pairs.sources, pairs.targets, strict=True)])
    kinds, kind_of_pair = np.unique(shapes, axis=0, return_inverse=True)
    order = np.argsort(kind_of_pair.reshape(-1), kind="stable")
    bounds = np.cumsum(np.bincount(kind_of_pair.reshape(-1)))[:-1]
    for (n, m), chosen in zip(kinds, np.split(order, bounds), strict=True):
        if n == 0:
            continue
        sources = np.stack([pairs.sources[i][:-1] for i in chosen]).astype(np.int64)
        targets = np.stack([pairs.targets[i][:-1] for i in chosen]).astype(np.int64)
        keys = (sources[:, None, :] << 32) + targets[:, :, None]
        distance = np.abs((np.arange(n) + 0.5) / n - (np.arange(m)[:, None] + 0.5) / m)
        yield _Group(chosen, keys, np.exp(-TENSION * distance))
