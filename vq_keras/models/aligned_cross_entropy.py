"""The cost of a sentence whose tokens find their own places."""

import keras
from keras import ops

from vq_keras.data.vocabulary import PAD
from vq_keras.errors import InputError
from vq_keras.layers.bigrams import expected_bigram_f1
from vq_keras.layers.ctc import IMPOSSIBLE, ctc_nll


class AlignedCrossEntropy(keras.layers.Layer):
    """What a target costs, whatever slots its tokens stand in, given the slots' vectors.

    Padding's id is the blank's: neither is ever a token of a target. A target that the slots cannot hold, since they
    are fewer than its tokens and the blanks between equal ones, has no -log p(y), for which stands 0: nothing can be
    learnt from it.

    The loss is a share of -log p(y) and a share of the bigrams of y that are not expected to be written,

        (1 - share) -log p(y) + share * m (1 - F1)

    for m tokens; see `expected_bigram_f1`. The first asks for y in its order, and where the slots draw each for itself
    it likes to hedge between ways to say it. The second asks for neighbours that are right, so that a share of 1 makes
    translations better and says nothing any more of their probabilities: for a model that the first has trained.

    Args:
        embedding: the `TiedEmbedding` that logits are made of.
        bigram_share: 0 to 1.

    Shapes:
        input: h (batch, slots, dim), y (batch, m) int32, and the number of slots of each sentence (batch,). Output:
        {"loss": (batch,), "nll": (batch,), -log p(y) in nats} and, with a bigram_share, "bigrams": (batch,), m F1.

    Raises:
        InputError: bigram_share is out of range.
    """

    def __init__(self, embedding, bigram_share: float = 0.0, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        if not 0 <= bigram_share <= 1:
            raise InputError(f"the bigrams' share of the loss is {bigram_share}; give 0 to 1.")
        self.supports_masking = True
        self.embedding = embedding
        self.bigram_share = bigram_share

    def call(self, hidden, target, num_slots):
        logits = self.embedding(hidden, reverse=True)
        log_sum = ops.logsumexp(logits, axis=-1)
        # The logits of a sentence's own tokens once more: a product is quicker than to look them up in all of them.
        own = ops.matmul(hidden, ops.transpose(ops.take(self.embedding.table, target, axis=0), (0, 2, 1)))
        num_labels = ops.sum(ops.cast(ops.not_equal(target, PAD), "int32"), axis=1)
        num_slots = ops.cast(num_slots, "int32")
        blank, labels = logits[..., PAD] - log_sum, own - log_sum[..., None]
        nll = ctc_nll(blank, labels, target, num_labels, num_slots)
        nll = ops.where(nll < -IMPOSSIBLE / 2, nll, 0.0)
        if not self.bigram_share:
            return {"loss": nll, "nll": nll}
        p = ops.exp(logits - log_sum[..., None])
        repeats = ops.sum(p[:, 1:] * p[:, :-1], axis=-1) - p[:, 1:, PAD] * p[:, :-1, PAD]
        repeats = ops.pad(repeats, [[0, 0], [1, 0]])
        count = ops.cast(num_labels, nll.dtype)
        bigrams = count * expected_bigram_f1(blank, labels, repeats, target, num_labels, num_slots)
        loss = (1 - self.bigram_share) * nll + self.bigram_share * (count - bigrams)
        return {"loss": loss, "nll": nll, "bigrams": bigrams}

    def compute_output_spec(self, hidden, target, num_slots):
        names = ("loss", "nll", *(["bigrams"] if self.bigram_share else []))
        return {name: keras.KerasTensor((hidden.shape[0],), dtype="float32") for name in names}
