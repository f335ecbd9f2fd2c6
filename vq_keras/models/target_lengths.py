"""What tells a decoder of all tokens at once how many there are, and which source token each of them starts from.

Three layers with one interface, for `ParallelTransformer`: `call` takes the encoder's memory (batch, n, dim), the
source (batch, n) and the target (batch, m) of training, and returns {"copies": int32 (batch, places), the source token
at each place of the decoder, "nll": -log p of what it predicts, in nats}; `predicts` is what that is, and
`count(source)` how many predictions. `propose` makes copies without a target.
"""

import keras
import numpy as np
from keras import ops

from vq_keras.data.vocabulary import EOS, PAD
from vq_keras.generation.logits import NEVER
from vq_keras.inverse_cdf import draw
from vq_keras.layers import copies
from vq_keras.layers.masks import pooled
from vq_keras.priors.soft_labels import cross_entropy

# Lengths are predicted from so many tokens below the source's to so many above, in translation from 1 to `longest`.
MAX_OFFSET = 50
# As in Gu et al. 2018, section 3.1; the last stands for all above.
MAX_FERTILITY = 50
# Source positions that have random numbers of their own.
_DRAWN_POSITIONS = 256


def longest(source_length):
    """The tokens of a translation at most, for those of its source: twice as many and 8."""
    return 2 * source_length + 8


@keras.saving.register_keras_serializable(package="vq_keras")
class LengthClassifier(keras.layers.Layer):
    """p(length of the target - length of the source | memory), a softmax over the mean of the memory.

    As fairseq's nonautoregressive_transformer, with its option of predicting the difference: the mean of the memory
    does not tell how long the source is, but that need not be predicted. (Differences beyond `MAX_OFFSET` count as
    that.) The memory gets no gradient, see `pooled`. Copies are uniform.

    Shapes:
        "nll" (batch,).
    """

    predicts = "length"

    def __init__(self, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.to_logits = keras.layers.Dense(2 * MAX_OFFSET + 1, dtype="float32", name="to_logits")

    def build(self, memory_shape, source_shape, target_shape):
        self.to_logits.build((memory_shape[0], memory_shape[2]))

    def call(self, memory, source, target):
        source_lengths, lengths = _lengths(source), _lengths(target)
        offsets = ops.clip(lengths - source_lengths, -MAX_OFFSET, MAX_OFFSET)
        return {
            "copies": copies.uniform(source, source_lengths, lengths, ops.shape(target)[1]),
            "nll": cross_entropy(offsets[:, None] + MAX_OFFSET, self._logits(memory, source)),
        }

    def count(self, source):
        return ops.cast(ops.shape(source)[0], "float32")

    def propose(self, memory, source, number: int, seed: int):
        """Copies for the likeliest lengths, the likeliest first.

        Args:
            memory, source: as in `call`.
            number: of lengths, at most 2 `MAX_OFFSET` + 1. Where a sentence cannot have so many, the longest, or the
                shortest, comes again, with the probability zero.
            seed: not used; lengths are not drawn.

        Returns:
            copies int32 (batch, number, longest(n)) and the log probabilities (batch, number) of their lengths.
        """
        source_lengths = _lengths(source)[:, None]
        lengths = source_lengths + ops.arange(-MAX_OFFSET, MAX_OFFSET + 1, dtype="int32")
        possible = ops.logical_and(lengths >= 1, lengths <= longest(source_lengths))
        log_probs = ops.where(possible, ops.log_softmax(self._logits(memory, source)), NEVER)
        log_probs, chosen = ops.top_k(log_probs, number)
        lengths = ops.take_along_axis(lengths, ops.cast(chosen, "int32"), axis=1)
        lengths = ops.minimum(ops.maximum(lengths, 1), longest(source_lengths))
        size = longest(ops.shape(source)[1])
        copied = copies.uniform(
            ops.repeat(source, number, axis=0),
            ops.repeat(source_lengths[:, 0], number, axis=0),
            ops.reshape(lengths, (-1,)),
            size,
        )
        return ops.reshape(copied, (-1, number, size)), log_probs

    def _logits(self, memory, source):
        return self.to_logits(pooled(memory, ops.not_equal(source, PAD)))


@keras.saving.register_keras_serializable(package="vq_keras")
class FertilityPredictor(keras.layers.Layer):
    """p(fertility | memory) of each source token: how many tokens of the target it stands for (Gu et al. 2018).

    A softmax over 0 to `MAX_FERTILITY` at each position; the encoder learns from it, too. `call` takes the true
    fertilities int32 (batch, n), which add up to the target's length, as a fourth argument.

    Shapes:
        "nll" (batch, n), 0 at padding.
    """

    predicts = "fertility"

    def __init__(self, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.to_logits = keras.layers.Dense(MAX_FERTILITY + 1, dtype="float32", name="to_logits")

    def build(self, memory_shape, source_shape, target_shape, fertility_shape):
        self.to_logits.build(memory_shape)

    def call(self, memory, source, target, fertility):
        labels = ops.where(ops.not_equal(source, PAD), ops.minimum(fertility, MAX_FERTILITY), -1)
        return {
            "copies": copies.by_fertility(source, fertility, ops.shape(target)[1]),
            "nll": cross_entropy(labels[..., None], self.to_logits(memory)),
        }

    def count(self, source):
        return ops.maximum(ops.sum(ops.cast(ops.not_equal(source, PAD), "float32")), 1.0)

    def propose(self, memory, source, number: int, seed: int):
        """Copies for the likeliest fertility of each token, and for fertilities drawn for all tokens of a sentence.

        The random numbers are a table that the seed alone decides: a sentence has the same candidates in any batch, on
        any backend, at each call of an exported model.

        Args:
            memory, source: as in `call`.
            number: of candidates for each sentence, the likeliest among them.
            seed: of the draws.

        Returns:
            copies int32 (batch, number, longest(n)), cut at `longest` of the sentence itself, and the log probabilities
            (batch, number) of their fertilities. The likeliest comes first. EOS stands for one token at least, lest a
            translation be empty.
        """
        log_probs = ops.log_softmax(self.to_logits(memory))
        fertilities = ops.cast(ops.top_k(log_probs, 1)[1], "int32")
        if number > 1:
            table = np.random.default_rng(seed).random((_DRAWN_POSITIONS, number - 1)).astype("float32")
            positions = ops.arange(ops.shape(source)[1], dtype="int32") % _DRAWN_POSITIONS
            uniforms = ops.take(table, positions, axis=0) + ops.zeros_like(log_probs[..., :1])
            fertilities = ops.concatenate([fertilities, draw(log_probs, uniforms)], axis=-1)
        fertilities = ops.maximum(fertilities, ops.cast(ops.equal(source, EOS), "int32")[..., None])
        present = ops.not_equal(source, PAD)[..., None]
        log_probs = ops.where(present, ops.take_along_axis(log_probs, fertilities, axis=-1), 0.0)
        fertilities = ops.swapaxes(ops.where(present, fertilities, 0), 1, 2)
        size = longest(ops.shape(source)[1])
        rows = ops.reshape(fertilities, (-1, ops.shape(source)[1]))
        copied = copies.by_fertility(ops.repeat(source, number, axis=0), rows, size)
        inside = ops.arange(size, dtype="int32") < longest(_lengths(source))[:, None, None]
        return ops.where(inside, ops.reshape(copied, (-1, number, size)), PAD), ops.sum(log_probs, axis=1)


@keras.saving.register_keras_serializable(package="vq_keras")
class StretchedSource(keras.layers.Layer):
    """No prediction at all: the source stretched to `longest`, for a decoder whose tokens find their own places.

    As in Libovický and Helcl 2018, "End-to-End Non-Autoregressive Neural Machine Translation with Connectionist
    Temporal Classification", there are more places than tokens, and blanks in those that are too many. They have three
    for each of the source; twice as many and 8 are what the other two layers allow a translation at most.

    Shapes:
        "nll" is missing.
    """

    predicts = None

    def call(self, memory, source, target):
        lengths = _lengths(source)
        size = longest(ops.shape(source)[1])
        return {"copies": copies.uniform(source, lengths, longest(lengths), size)}

    def compute_output_spec(self, memory, source, target):
        size = None if source.shape[1] is None else longest(source.shape[1])
        return {"copies": keras.KerasTensor((source.shape[0], size), dtype="int32")}

    def propose(self, memory, source, number: int, seed: int):
        """The copies of `call`, as the one candidate there is.

        Args:
            memory, source: as in `call`.
            number: 1.
            seed: not used.

        Returns:
            copies int32 (batch, 1, longest(n)) and the log probabilities (batch, 1) of nothing, 0.
        """
        copied = self(memory, source, source)["copies"]
        return copied[:, None], ops.zeros((ops.shape(source)[0], 1))


def _lengths(sentences):
    return ops.sum(ops.cast(ops.not_equal(sentences, PAD), "int32"), axis=1)
