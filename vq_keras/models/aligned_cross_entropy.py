"""The cost of a sentence whose tokens find their own places."""

import keras
from keras import ops

from vq_keras.data.vocabulary import PAD
from vq_keras.layers.ctc import IMPOSSIBLE, ctc_nll


class AlignedCrossEntropy(keras.layers.Layer):
    """What a target costs, whatever slots its tokens stand in, given the slots' vectors.

    Padding's id is the blank's: neither is ever a token of a target. A target that the slots cannot hold, since they
    are fewer than its tokens and the blanks between equal ones, costs nothing: nothing can be learnt from it.

    Args:
        embedding: the `TiedEmbedding` that logits are made of.

    Shapes:
        input: h (batch, slots, dim), y (batch, m) int32, and the number of slots of each sentence (batch,). Output:
        {"loss": (batch,), "nll": (batch,)}, both -log p(y) in nats.
    """

    def __init__(self, embedding, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.supports_masking = True
        self.embedding = embedding

    def call(self, hidden, target, num_slots):
        logits = self.embedding(hidden, reverse=True)
        log_sum = ops.logsumexp(logits, axis=-1)
        # The logits of a sentence's own tokens once more: a product is quicker than to look them up in all of them.
        own = ops.matmul(hidden, ops.transpose(ops.take(self.embedding.table, target, axis=0), (0, 2, 1)))
        num_labels = ops.sum(ops.cast(ops.not_equal(target, PAD), "int32"), axis=1)
        blank, labels = logits[..., PAD] - log_sum, own - log_sum[..., None]
        nll = ctc_nll(blank, labels, target, num_labels, ops.cast(num_slots, "int32"))
        nll = ops.where(nll < -IMPOSSIBLE / 2, nll, 0.0)
        return {"loss": nll, "nll": nll}

    def compute_output_spec(self, hidden, target, num_slots):
        return {name: keras.KerasTensor((hidden.shape[0],), dtype="float32") for name in ("loss", "nll")}
