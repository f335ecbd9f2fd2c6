"""A language model of subwords that a search can ask for many of them at once."""

from collections.abc import Iterable, Sequence

import keras
import numpy as np
from keras import ops

from vq_keras.double_array import EMPTY, pack
from vq_keras.kneser_ney import kneser_ney


@keras.saving.register_keras_serializable(package="vq_keras")
class NGrams(keras.layers.Layer):
    """log p(word | the n - 1 words before it), as counted in text (`kneser_ney`).

    Its weights are tables that no training moves: a trie of the n-grams that were seen, whose nodes are their places in
    it. What has gone before is n nodes, those of none, one, two, ... of the words before; a place at which nothing is
    stands for those that were not seen. A word then costs two looks for each, however many n-grams there are, on every
    backend and without operations of its own.

    Args:
        order: n.
        num_places: length of the tables, which `fit` finds out.
        end: the id that ends a sentence, and stands for its beginning, too.

    Attributes:
        weight: a variable, how much a search makes of log p(word | words before).
        bonus: a variable, what a search adds for each word, in nats, lest it prefer short sentences. They begin with 1
            and 5; `vq_keras.training.ngrams.add_ngrams` finds better ones.

    Shapes:
        input: nodes int32 (..., n), words int32 (..., k). Output: log p (..., k) in nats, and the nodes int32
        (..., k, n) behind each of those words.

    Example:
        >>> ngrams = NGrams.fit([[5, 6, 1], [5, 7, 1]], vocabulary_size=8, order=3)
        >>> log_probs, nodes = ngrams(ngrams.beginning(), ops.array([5, 6]))
        >>> bool(log_probs[0] > log_probs[1])
        True
    """

    def __init__(self, order: int, num_places: int, end: int = 1, **kwargs):
        super().__init__(trainable=False, dtype="float32", **kwargs)
        self.order = order
        self.num_places = num_places
        self.end = end

        def table(name, dtype):
            return self.add_weight(
                shape=(num_places,), dtype=dtype, name=name, initializer="zeros", trainable=False, autocast=False
            )

        self._parent = table("parent", "int32")
        self._base = table("base", "int32")
        self._gain = table("gain", "float32")
        self._log_backoff = table("log_backoff", "float32")
        self.weight, self.bonus = (
            self.add_weight(
                shape=(), name=name, initializer=keras.initializers.Constant(value), trainable=False, autocast=False
            )
            for name, value in (("weight", 1.0), ("bonus", 5.0))
        )
        self.built = True

    @classmethod
    def fit(cls, sentences: Iterable[Sequence[int]], vocabulary_size: int, order: int = 4, end: int = 1) -> "NGrams":
        """The language model of a text.

        Args:
            sentences, vocabulary_size, order, end: as of `kneser_ney`.

        Raises:
            InputError: as `kneser_ney`.
        """
        orders = kneser_ney(sentences, vocabulary_size, order, end)
        parent, base, places = pack([(each.prefix, each.word) for each in orders])
        # Behind them the root, whose children stand at their words, and a node that no child names, for all unseen.
        root, size = len(parent), len(parent) + 2
        parent, base = np.append(parent, [EMPTY, EMPTY]), np.append(base, [0, 0])
        parent[places[0]] = root
        gain, log_backoff = np.zeros(size, "float32"), np.zeros(size, "float32")
        for each, place in zip(orders, places, strict=True):
            gain[place] = each.gain
            log_backoff[place] = each.log_backoff
        layer = cls(order, size, end, name="ngrams")
        layer._parent.assign(parent)
        layer._base.assign(base)
        layer._gain.assign(gain)
        layer._log_backoff.assign(log_backoff)
        return layer

    def beginning(self):
        """The nodes (n,) before the first word of a sentence."""
        return ops.array([self.num_places - 2, self.end] + [self.num_places - 1] * (self.order - 2), dtype="int32")

    def call(self, nodes, words):
        children = ops.take(self._base, nodes, axis=0)[..., None, :] + words[..., None]
        seen = ops.equal(ops.take(self._parent, children, axis=0), nodes[..., None, :])
        # An n-gram that was seen has all of its endings seen: each longer one adds what it knows better, and each that
        # was not seen costs what stands for the words that were not seen there.
        lack = ops.take(self._log_backoff, nodes, axis=0)[..., None, :]
        log_prob = ops.sum(ops.where(seen, ops.take(self._gain, children, axis=0), lack), axis=-1)
        behind = ops.where(seen, children, self.num_places - 1)[..., :-1]
        root = ops.full_like(behind[..., :1], self.num_places - 2)
        return log_prob, ops.concatenate([root, behind], axis=-1)

    def get_config(self):
        return {"name": self.name, "order": self.order, "num_places": self.num_places, "end": self.end}
