"""Probabilities of a word after the few before it, estimated from text."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from vq_keras.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Order:
    """All n-grams of one order n, sorted by prefix and word.

    Attributes:
        prefix: int (number,), which of the order before is its n-gram without the last word; 0 for the first order.
        word: int (number,), the last word.
        log_prob: (number,), log p(last word | those before) in nats.
        gain: (number,), how much that is more than after the n-gram without its first word; for the first order
            `log_prob` itself.
        log_backoff: (number,), what a word costs that was not seen after the whole n-gram, in nats, beside its log
            probability after the n-gram without its first word.
    """

    prefix: np.ndarray
    word: np.ndarray
    log_prob: np.ndarray
    gain: np.ndarray
    log_backoff: np.ndarray


def kneser_ney(sentences: Iterable[Sequence[int]], vocabulary_size: int, order: int, end: int = 1) -> list[Order]:
    """Estimates an n-gram language model by interpolated Kneser-Ney smoothing.

        p(w | h) = (c(h w) - D) / c(h) + D * (number of words seen after h) / c(h) * p(w | h without its first word)

    where c counts how often h w occurs, for the longest h, and for shorter ones after how many different words it does;
    D = n1 / (n1 + 2 n2) is found from how many h w have the counts 1 and 2. The shortest h is empty, and after it p
    falls back to one over the size of the vocabulary. Source: Chen and Goodman 1999, "An Empirical Study of Smoothing
    Techniques for Language Modeling", section 2.7 and equations 20 to 24 for a single D; n-grams at the beginning of a
    sentence, before which there is nothing to count, keep how often they occur.

    N-grams of three words and more that occur once are left out, and their probability goes to the shorter ones. They
    are most of the size of a model and little of its use.

    Args:
        sentences: rows of ids, each with `end` at its end.
        vocabulary_size: number of ids.
        order: n, the length of the longest n-grams, at least 2.
        end: the id that ends a sentence, and stands for its beginning, too.

    Returns:
        The orders 1 to n; the first has every id of the vocabulary, in their order.

    Raises:
        InputError: order is below 2, or there are no sentences.

    Example:
        >>> first, second = kneser_ney([[5, 6, 1], [5, 7, 1]], vocabulary_size=8, order=2)
        >>> float(first.log_prob[5]) < float(first.log_prob[1])
        True
    """
    if order < 2:
        raise InputError(f"the order of the n-grams is {order}; give at least 2.")
    words, depth = _flat(sentences, end)
    if not len(words):
        raise InputError("there is no text to count n-grams in: give at least one sentence.")
    # Of each position, the n-gram that ends there, as its number among those of its order; and by order where there is
    # one, since none reaches over the beginning of a sentence.
    ending = [words]
    grams = [_Grams(np.zeros(vocabulary_size, "int64"), np.arange(vocabulary_size), None, None)]
    places = [np.flatnonzero(depth > 0)]
    for n in range(2, order + 1):
        at = np.flatnonzero(depth >= n - 1)
        keys = ending[-1][at - 1] * vocabulary_size + words[at]
        unique, where, found = np.unique(keys, return_index=True, return_inverse=True)
        suffix = ending[-1][at[where]]
        first = at[where]
        numbers = np.full(len(words), -1)
        numbers[at] = found
        grams.append(_Grams(unique // vocabulary_size, unique % vocabulary_size, suffix, depth[first] == n - 1))
        ending.append(numbers)
        places.append(at)

    orders, log_prob = [], np.full(vocabulary_size, -np.log(vocabulary_size))
    for n, (gram, number, at) in enumerate(zip(grams, ending, places, strict=True), 1):
        occurrences = np.bincount(number[at], minlength=len(gram.word))
        counts = occurrences
        if n < order:
            followed = grams[n]
            counts = np.bincount(followed.suffix, minlength=len(gram.word))
            if n > 1:
                counts = np.where(gram.at_beginning, occurrences, counts)
        discount = _discount(counts)
        total = np.bincount(gram.prefix, counts)
        seen = np.bincount(gram.prefix, counts > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = discount * seen / total
            own = np.maximum(counts - discount, 0) / total[gram.prefix]
        lower = np.exp(log_prob if n == 1 else log_prob[gram.suffix])
        log_prob = np.log(own + share[gram.prefix] * lower)
        orders.append((gram, occurrences, log_prob))
    return _pruned(orders)


@dataclasses.dataclass(frozen=True, eq=False)
class _Grams:
    prefix: np.ndarray
    word: np.ndarray
    suffix: np.ndarray | None  # Which of the order before is the n-gram without its first word.
    at_beginning: np.ndarray | None


def _flat(sentences, end):
    """All words in a row, with a beginning before each sentence, and how far each is from it."""
    rows = [np.concatenate([[end], np.asarray(row, "int64")]) for row in sentences]
    if not rows:
        return np.zeros(0, "int64"), np.zeros(0, "int64")
    return np.concatenate(rows), np.concatenate([np.arange(len(row)) for row in rows])


def _discount(counts):
    once, twice = (np.count_nonzero(counts == number) for number in (1, 2))
    # A text in which nothing occurs once, or nothing twice, says nothing of what it leaves out.
    return once / (once + 2 * twice) if once and twice else 0.5


def _pruned(orders):
    """The orders without the rare n-grams, numbered anew, and what words cost that are not there."""
    kept = [np.ones(len(gram.word), "bool") if n < 2 else seen > 1 for n, (gram, seen, _) in enumerate(orders)]
    results = []
    for n, (gram, _, log_prob) in enumerate(orders):
        keep = kept[n]
        # An n-gram that is kept occurs as often as its prefix at most, which is kept then, too.
        prefix = gram.prefix if n == 0 else (np.cumsum(kept[n - 1]) - 1)[gram.prefix]
        log_backoff = np.zeros(len(gram.word))
        if n + 1 < len(orders):
            longer, _, its_log_prob = orders[n + 1]
            those = kept[n + 1]
            after, size = longer.prefix[those], len(gram.word)
            left = 1 - np.bincount(after, np.exp(its_log_prob[those]), size)
            lower = 1 - np.bincount(after, np.exp(log_prob[longer.suffix[those]]), size)
            # Where all of the vocabulary was seen nothing is left to be shared, but for errors of rounding.
            tiny = np.finfo("float64").eps
            log_backoff = np.log(np.maximum(left, tiny) / np.maximum(lower, tiny))
        gain = log_prob if n == 0 else log_prob - orders[n - 1][2][gram.suffix]
        results.append(Order(*(each[keep] for each in (prefix, gram.word, log_prob, gain, log_backoff))))
    return results
