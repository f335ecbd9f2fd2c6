"""What a decoder with connectionist temporal classification has written in its slots."""

from vq_keras import generation
from vq_keras.data.vocabulary import EOS, PAD


def read_slots(logits, present, ngrams=None):
    """The tokens of slots: of the likeliest path, or, with n-grams, of the path with the best score (`path_search`).

    Args:
        logits: (batch, slots, vocabulary).
        present: bool (batch, slots), false at the slots that a sentence does not have.
        ngrams: an `NGrams`, or None.

    Returns:
        tokens (batch, slots) int32, up to EOS and then 0, and the log probability (batch,) of the path.
    """
    if ngrams is None:
        return generation.best_path(logits, present, EOS, blank=PAD)
    weights = {"weight": ngrams.weight, "bonus": ngrams.bonus}
    return generation.path_search(logits, present, EOS, ngrams, ngrams.beginning(), **weights, blank=PAD)
