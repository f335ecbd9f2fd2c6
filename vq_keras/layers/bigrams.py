"""How many pairs of neighbours a sentence shares with its target, wherever they stand."""

from keras import ops

from vq_keras.layers.ctc import IMPOSSIBLE


def expected_bigram_f1(blank, labels, repeats, ids, num_labels, num_slots):
    """The F1 of the bigrams that slots are expected to write, with a label or a blank drawn for each on its own.

    Shao and Feng 2022, "Non-Monotonic Latent Alignments for CTC-Based Non-Autoregressive Machine Translation". Slots
    write (a, b) once for each i < j at which a stands in i, b in j and blanks between them, so that its
    expected count is

        c(a, b) = sum over i < j of p_i(a) p_i+1(blank) ... p_j-1(blank) p_j(b)

    without j = i + 1 if a and b are the same label, which would be one. Then F1 is 2 sum over the target's bigrams of
    min(c, its count) / (expected count of all bigrams + number of the target's). The beginning of the sentence is a
    label here, too, as the end is in its ids.

    Args:
        blank: (batch, slots), the blank's log probability in each slot.
        labels: (batch, slots, m), that of each label.
        repeats: (batch, slots), the probability that a slot draws the same label as the one before it, no blank.
        ids: (batch, m), the labels.
        num_labels: (batch,), how many of them there are.
        num_slots: (batch,), and of the slots.

    Returns:
        (batch,), 0 to 1.

    Example:
        >>> blank, labels = ops.log([[1e-9, 1e-9]]), ops.log([[[1.0, 1e-9], [1e-9, 1.0]]])  # Writes 7 8.
        >>> expected_bigram_f1(blank, labels, ops.zeros((1, 2)), ops.array([[7, 8]]), ops.array([2]), ops.array([2]))
        [1.0]
    """
    slots, m = ops.shape(labels)[1:]
    there = ops.arange(slots) < num_slots[:, None]
    blank, labels = ops.where(there, blank, 0.0), ops.where(there[..., None], ops.exp(labels), 0.0)
    valid = ops.cast(ops.arange(m) < num_labels[:, None], labels.dtype)
    # Blanks before each slot, from the first on: between[:, i, j] are all of those from i + 1 to j - 1.
    before = ops.cumsum(blank, axis=1) - blank
    between = before[:, None, :] - (before + blank)[:, :, None]
    later = ops.arange(slots)[:, None] < ops.arange(slots)
    between = ops.exp(ops.where(later, between, IMPOSSIBLE))
    reached = ops.matmul(ops.transpose(between, (0, 2, 1)), labels[..., :-1])
    adjacent = ops.pad(labels[:, :-1, :-1], [[0, 0], [1, 0], [0, 0]])
    same = ops.cast(ops.equal(ids[:, 1:], ids[:, :-1]), labels.dtype)
    reached = reached - same[:, None] * adjacent
    # The beginning of the sentence stands before the first slot.
    reached = ops.concatenate([ops.exp(before)[..., None], reached], axis=-1)
    counts = ops.sum(reached * labels, axis=1)

    previous = ops.pad(ids[:, :-1], [[0, 0], [1, 0]], constant_values=-1)
    equal = ops.logical_and(ids[:, :, None] == ids[:, None], previous[:, :, None] == previous[:, None])
    occurrences = ops.maximum(ops.sum(ops.cast(equal, labels.dtype) * valid[:, None], axis=2), 1.0)
    # Each occurrence of a bigram gets its share of what they all come to.
    matched = ops.sum(valid * ops.minimum(counts / occurrences, 1.0), axis=1)
    written = ops.sum(ops.where(there, 1.0 - ops.exp(blank) - repeats, 0.0), axis=1)
    return 2 * matched / (written + ops.cast(num_labels, labels.dtype))
