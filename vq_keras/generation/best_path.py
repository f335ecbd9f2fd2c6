"""Sequences that a decoder with connectionist temporal classification has written."""

from keras import ops

from vq_keras.generation.logits import log_normalizer


def best_path(logits, present, end: int, blank: int = 0):
    """The likeliest label of each slot, without repeats and then without blanks, up to the first end.

    It is the best path of Graves et al. 2006, "Connectionist Temporal Classification", section 3.2: the likeliest
    alignment, whose labels are not always the likeliest sequence, since a sequence has many alignments.

    Args:
        logits: (batch, slots, num_labels).
        present: bool (batch, slots), false at the slots that a sequence does not have, all behind those it has.
        end: the id that ends a sequence before that.
        blank: the id of no label.

    Returns:
        labels (batch, slots) int32, 0 where a sequence is over, and the log probability (batch,) of each path in nats.

    Example:
        >>> logits = ops.log([[[0.1, 0.1, 0.8], [0.1, 0.1, 0.8], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]])
        >>> best_path(logits, ops.ones((1, 4), "bool"), end=1)  # [[2, 2, 0, 0]] and [log(0.8 ^ 4)]
    """
    # Not argmax, as in `parallel`.
    best, labels = ops.top_k(logits, 1)
    log_probs = ops.where(present, (best - log_normalizer(logits, best))[..., 0], 0.0)
    labels = ops.where(present, ops.cast(labels[..., 0], "int32"), blank)
    return without_blanks(labels, end, blank), ops.sum(log_probs, axis=1)


def without_blanks(labels, end: int, blank: int = 0):
    """Paths (batch, slots) int32 without repeats and then without blanks, up to the first end, then 0."""
    before = ops.pad(labels[:, :-1], [[0, 0], [1, 0]], constant_values=blank)
    kept = ops.logical_and(ops.not_equal(labels, blank), ops.not_equal(labels, before))
    is_end = ops.cast(ops.logical_and(kept, ops.equal(labels, end)), "int32")
    kept = ops.logical_and(kept, ops.cumsum(is_end, axis=1) - is_end == 0)
    # Those kept first, in their order.
    places = ops.arange(ops.shape(labels)[1], dtype="int32")
    order = ops.argsort(ops.where(kept, places, places + ops.shape(labels)[1]), axis=1)
    return ops.take_along_axis(ops.where(kept, labels, 0), order, axis=1)
