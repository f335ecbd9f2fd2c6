"""Sequences of a decoder with connectionist temporal classification that a language model finds likely, too."""

from collections.abc import Callable

from keras import ops

from vq_keras.generation.best_path import without_blanks
from vq_keras.generation.logits import NEVER, largest, log_normalizer

# Open sequences of a sentence, and labels of a slot that are tried. The slots of a trained model leave little open:
# on captions 64 and 11 brought 0.2 BLEU at most.
BEAMS, LABELS = 4, 4


def path_search(
    logits, present, end: int, language_model: Callable, beginning, weight: float, bonus: float, blank: int = 0
):
    """The path through slots with the highest score among those that a beam search tries.

    A path gives each slot a label or the blank; the sequence is its labels without repeats and then without blanks.
    Its score is

        sum over slots log p(label or blank) + sum over the sequence (weight * log p(label | those before) + bonus)

    where the first probability is the slots' and the second the language model's; it does not count what stands
    behind the first `end`. Slots draw each label for itself, so that a word may begin as one translation and end as
    another; the language model knows which labels follow each other. The bonus makes up for what each label costs.

    Of paths that the language model sees alike, and whose last slots are alike, the best goes on alone, since what
    follows scores the same for all ("recombination"). Sources: Graves et al. 2006 for the paths; Hannun et al. 2014,
    "First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs", for weight and
    bonus. They add up all paths of a sequence, where this takes the best: what the sum adds made no difference on
    captions.

    Args:
        logits: (batch, slots, num_labels).
        present: bool (batch, slots), false at the slots that a sequence does not have, all behind those it has.
        end: the id that ends a sequence before that.
        language_model: function (states (batch, beams, m) int32, labels (batch, beams, k) int32) -> (log p of each
            label (batch, beams, k), states behind it (batch, beams, k, m)). Equal states have equal futures. Of
            sequences that are over it is asked about a state of `end` alone; what it says does not count.
        beginning: (m,) int32, the state before the first label.
        weight, bonus: as above.
        blank: the id of no label.

    Returns:
        labels (batch, slots) int32, 0 where a sequence is over, and the log probability (batch,) of each path in nats,
        as the slots tell it and up to its `end`.

    Example:
        >>> ngrams = NGrams.fit([[2, 2, 1], [3, 3, 1]], vocabulary_size=4, order=2)
        >>> logits = ops.log([[[0.1, 0.1, 0.5, 0.3], [0.6, 0.1, 0.2, 0.1], [0.1, 0.1, 0.3, 0.5]]])
        >>> path_search(logits, ops.ones((1, 3), "bool"), 1, ngrams, ngrams.beginning(), weight=1.0, bonus=1.0)
        # [[2, 2, 0]], where each slot for itself says 2, 3, and log(0.5 * 0.6 * 0.3)
    """
    batch, slots, size = ops.shape(logits)
    tried = min(LABELS, size)
    best, ids = largest(ops.reshape(logits, (-1, size)), tried)
    best, ids = (ops.reshape(x, (batch, slots, tried)) for x in (best, ids))
    log_p = best - log_normalizer(logits, best[..., :1])
    log_blank = logits[..., blank : blank + 1] - best[..., :1] + log_p[..., :1]
    # The blank first, and once; and nothing else where there is no slot.
    log_p = ops.where(ops.logical_and(present[..., None], ops.not_equal(ids, blank)), log_p, NEVER)
    log_p = ops.concatenate([ops.where(present[..., None], log_blank, 0.0), log_p], axis=-1)
    ids = ops.pad(ids, [[0, 0], [0, 0], [1, 0]], constant_values=blank)
    tried += 1

    beginning = ops.pad(ops.cast(beginning, "int32"), [[0, 1]], constant_values=blank)
    width = beginning.shape[0]
    is_blank = ops.arange(tried) == 0
    over = ops.where(is_blank, 0.0, NEVER)
    sentences = ops.arange(batch, dtype="int32")[:, None]
    places = ops.arange(slots, dtype="int32")
    last = ops.max(ops.sum(ops.cast(present, "int32"), axis=1), initial=0)

    def more(t, *rest):
        return t < last

    def body(t, scores, states, path):
        # The last number of a state is the label of the slot before; after the `end` all states are alike.
        before = states[..., -1:]
        labels = ops.broadcast_to(ids[:, t][:, None], (batch, BEAMS, tried))
        told, behind = language_model(states[..., :-1], labels)
        same = ops.logical_or(is_blank, ops.equal(labels, before))
        behind = ops.where(same[..., None], states[:, :, None, :-1], behind)
        behind = ops.concatenate([behind, labels[..., None]], axis=-1)
        ended = ops.equal(before, end)
        behind = ops.where(ops.logical_or(ended, ops.equal(labels, end))[..., None], end, behind)
        gained = ops.where(ended, over, log_p[:, t][:, None])
        new = scores[..., None] + gained + ops.where(same, 0.0, weight * told + bonus)

        new = ops.reshape(new, (batch, BEAMS * tried))
        behind = ops.reshape(behind, (batch, BEAMS * tried, width))
        alike = ops.all(ops.equal(behind[:, :, None], behind[:, None]), axis=-1)
        beaten = ops.any(ops.logical_and(alike, new[:, :, None] > new[:, None]), axis=1)
        scores, chosen = ops.top_k(ops.where(beaten, NEVER, new), BEAMS)
        chosen = ops.cast(chosen, "int32") + BEAMS * tried * sentences
        states = ops.take(ops.reshape(behind, (-1, width)), chosen, axis=0)
        path = ops.take(ops.reshape(path, (-1, slots)), chosen // tried, axis=0)
        # where() and no slice update, which TF Serving refuses to run.
        return t + 1, scores, states, ops.where(ops.equal(places, t), (chosen % tried)[..., None], path)

    state = (
        ops.zeros((), "int32"),
        ops.zeros((batch, BEAMS)) + ops.where(ops.arange(BEAMS) > 0, NEVER, 0.0),  # Only one may count at first.
        ops.broadcast_to(beginning, (batch, BEAMS, width)),
        ops.zeros((batch, BEAMS, slots), "int32"),
    )
    path = ops.while_loop(more, body, state)[3][:, 0, :, None]
    labels, log_p = (ops.take_along_axis(x, path, axis=2)[..., 0] for x in (ids, log_p))
    is_end = ops.cast(ops.equal(labels, end), "int32")
    counts = ops.cumsum(is_end, axis=1) - is_end == 0
    return without_blanks(labels, end, blank), ops.sum(ops.where(counts, log_p, 0.0), axis=1)
