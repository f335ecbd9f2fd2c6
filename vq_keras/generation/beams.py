"""Beam search: the most likely sequences of codes, as far as a few alternatives at each code find them."""

from collections.abc import Callable

from keras import ops, tree

from vq_keras.errors import InputError
from vq_keras.generation.logits import NEVER, largest, log_normalizer
from vq_keras.generation.stages import loop


def beam_search(
    step: Callable,
    cache,
    length: int,
    start,
    beams: int,
    end: int | None = None,
    length_penalty: float = 0.0,
    best: int | None = None,
    lengths=None,
    grow: Callable | None = None,
):
    """Searches for the sequences with the highest score, log p(sequence) / ((5 + its length) / 6) ** length_penalty.

    A sequence is complete with its code `end`, which counts in its length and its probability. Each step looks at the
    2 `beams` likeliest continuations of the `beams` open sequences of a sentence; at least `beams` of them are open
    again, as each open sequence can end in one way only. Those that are complete compete by score for the `best`
    places of the result, and the likeliest open ones go on. The search stops when no open sequence could get into a
    result any more, even if it went on at probability one to the greatest length. What comes to the greatest length
    has to end there: its last code is `end`, at its probability. Without `end`, all sequences have that length.

    With one beam and without `end` this is greedy search. With an `end` it may find better than that, as it goes on
    after an end that is not certain to be the best.

    Source: the penalty, without the one for coverage, is equation 14 of Wu et al. 2016, "Google's Neural Machine
    Translation System". Candidates and the rule for stopping are those of Tensor2Tensor and tf-models-official, which
    Vaswani et al. 2017 translate with at 4 beams, penalty 0.6, and the source's length plus 50 as greatest length. It
    differs from tf-models-official in this: sequences that come to the greatest length are not dropped (nor, where
    there are no others, returned without an end and a penalty), but ended; and a sentence gets `best` sequences
    whatever the others of its batch do, where that search stops with those that it has when the worst of them is safe.

    Args:
        step: function (previous codes (rows,) int32, t, cache) -> (logits (rows, num_codes), cache) for t = 0, 1,
            ..., length - 1 in order; rows = batch * beams, the beams of a sentence one after the other. What is the
            same for all beams of a sentence is best kept out of the cache.
        cache: what the first step gets; a nest of tensors with the first axis `rows` whose shapes no step changes. Its
            rows are gathered once a step.
        length: the greatest number of codes.
        start: (batch,) int32, what the first step gets as previous codes.
        beams: number of open sequences a sentence.
        end: the id that ends a sequence; None if all have their greatest length.
        length_penalty: 0 for the most likely sequences; positive numbers favour long ones.
        best: how many sequences to return, `beams` if not given. Fewer are found in fewer steps.
        lengths: (batch,) between 1 and `length`, if sentences have greatest lengths of their own.
        grow: function (cache, number of codes) -> cache with room for so many, where `cache` has less than `length`.

    Returns:
        codes (batch, best, length) int32, 0 after the end, best first, and their scores (batch, best). Where there are
        not so many sequences of positive probability, codes 0 and score -inf.

    Raises:
        InputError: beams or best is below 1, or length_penalty negative.

    Example:
        >>> chain = ops.log([[0.0, 0.3, 0.7], [0.0, 0.5, 0.5], [0.0, 0.4, 0.6]])
        >>> step = lambda previous, t, cache: (ops.take(chain, previous, axis=0), cache)
        >>> beam_search(step, (), 3, start=ops.zeros((1,), "int32"), beams=2, end=1)
        # [[[1, 0, 0], [2, 1, 0]]] and [[log(0.3), log(0.28)]]
    """
    best = beams if best is None else best
    if beams < 1 or best < 1:
        raise InputError(f"beams is {beams} and best is {best}; give at least 1.")
    if not length_penalty >= 0:
        raise InputError(f"length_penalty is {length_penalty}; give 0 or a positive number.")

    start = ops.cast(start, "int32")
    batch = ops.shape(start)[0]
    sentences = ops.arange(batch, dtype="int32")[:, None]
    places = ops.arange(length, dtype="int32")
    lengths = ops.cast(length if lengths is None else lengths, "int32")
    lengths = ops.broadcast_to(ops.reshape(lengths, (-1, 1)), (batch, 1))

    greatest = gnmt_penalty(lengths, length_penalty)

    def could_improve(t, previous, open_scores, scores, codes, cache):
        # Log probabilities only fall: at best, one stays as it is until the penalty is greatest.
        return ops.any(open_scores[:, :1] / greatest > scores[:, -1:])

    def body(t, previous, open_scores, scores, codes, cache):
        logits, cache = step(ops.reshape(previous, (-1,)), t, cache)
        last = t + 1 >= lengths
        log_probs, beam, code = _continuations(ops.cast(logits, "float32"), open_scores, sentences, last, end)
        number = log_probs.shape[1]
        complete = last if end is None else ops.equal(code, end)

        # The result so far comes first and so stays where scores are equal: nothing of score -inf takes an empty place.
        completed = ops.where(complete, log_probs / gnmt_penalty(t + 1, length_penalty), NEVER)
        scores, best_ones = ops.top_k(ops.concatenate([scores, completed], axis=1), best)
        open_scores, open_ones = ops.top_k(ops.where(complete, NEVER, log_probs), beams)

        # `codes` are those of the result and of the open sequences. Each new one continues one of the old ones: those
        # of the result themselves, with padding, the others one of the open ones.
        parents = ops.concatenate([ops.arange(best, dtype="int32") + 0 * sentences, best + beam], axis=1)
        added = ops.concatenate([ops.zeros((batch, best), "int32"), code], axis=1)
        chosen = ops.concatenate([best_ones, best + open_ones], axis=1) + (best + number) * sentences
        parents, added = (ops.take(ops.reshape(x, (-1,)), chosen) for x in (parents, added))
        codes = ops.take(ops.reshape(codes, (-1, length)), parents + (best + beams) * sentences, axis=0)
        # where() and no slice update, which TF Serving refuses to run.
        codes = ops.where(ops.equal(places, t), added[..., None], codes)

        rows = ops.reshape(parents[:, best:] - best + beams * sentences, (-1,))
        cache = tree.map_structure(lambda x: ops.take(x, rows, axis=0), cache)
        return t + 1, added[:, best:], open_scores, scores, codes, cache

    previous = ops.repeat(start[:, None], beams, axis=1)
    # All beams are equal at first, so that only one may count.
    open_scores = ops.where(ops.arange(beams) + 0 * sentences > 0, NEVER, 0.0)
    scores = ops.full((batch, best), NEVER)
    codes = ops.zeros((batch, best + beams, length), "int32")
    state = (ops.zeros((), "int32"), previous, open_scores, scores, codes, cache)
    _, _, _, scores, codes, _ = loop(could_improve, body, state, length, grow)
    return codes[:, :best], scores


def gnmt_penalty(lengths, length_penalty: float):
    """((5 + length) / 6) ** length_penalty, what the log probability of a sequence is divided by to be its score.

    Equation 14 of Wu et al. 2016, without the penalty for coverage.

    Args:
        lengths: of the sequences, their ends among them, any shape.
        length_penalty: 0 for no penalty; positive numbers favour long sequences.

    Returns:
        float32, of the shape of the lengths.

    Example:
        >>> float(gnmt_penalty(1, 0.6)), float(gnmt_penalty(7, 1.0))
        (1.0, 2.0)
    """
    return ops.power((5.0 + ops.cast(lengths, "float32")) / 6.0, length_penalty)


def _continuations(logits, open_scores, sentences, last, end):
    """The 2 beams likeliest continuations of the open sequences of each sentence, all beams together.

    The logarithms of the probabilities of all codes would be as large as the logits once more, so that only those of
    the 2 beams largest logits of each row are made.

    Args:
        logits: (rows, num_codes).
        open_scores: (batch, beams), the log probability of each open sequence.
        sentences: (batch, 1), 0, 1, 2, ...
        last: (batch, 1), whether a sentence's open sequences have to end.
        end: the id that ends them, or None.

    Returns:
        log probability, number of the open sequence, and code, each (batch, 2 beams) but for tiny vocabularies.
    """
    beams = open_scores.shape[1]
    values, codes = largest(logits, min(2 * beams, logits.shape[-1]))
    number = values.shape[1]
    normalizer = log_normalizer(logits, values[:, :1])
    gained, codes = (ops.reshape(x, (-1, beams, number)) for x in (values - normalizer, codes))
    if end is not None:
        ending = ops.reshape(logits[:, end : end + 1] - normalizer, (-1, beams, 1))
        ending = ops.where(ops.arange(number) > 0, NEVER, ending)
        gained = ops.where(last[..., None], ending, gained)
        codes = ops.where(last[..., None], end, codes)
    log_probs = ops.reshape(open_scores[..., None] + gained, (-1, beams * number))
    log_probs, chosen = ops.top_k(log_probs, min(2 * beams, beams * number))
    return log_probs, chosen // number, ops.take(ops.reshape(codes, (-1,)), chosen + beams * number * sentences)
