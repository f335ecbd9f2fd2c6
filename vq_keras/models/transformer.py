"""The autoregressive Transformer of translation: baseline, teacher and judge of the latent-variable models."""

import keras
from keras import ops

from vq_keras.bottlenecks import replicas
from vq_keras.data.vocabulary import EOS, PAD
from vq_keras.errors import InputError
from vq_keras.layers import SinusoidalPositions, TiedEmbedding, TransformerDecoder, TransformerEncoder
from vq_keras.presets import FromPreset


@keras.saving.register_keras_serializable(package="vq_keras")
class TokenCrossEntropy(keras.layers.Layer):
    """What each target token costs, given the decoder's output h and the embeddings e that its logits are made of.

    With smoothed labels q = (1 - s) onehot(y) + s / V (Szegedy et al. 2016, section 7) the cross entropy is

        -sum_v q_v log p_v  =  log sum_v exp z_v - sum_v q_v z_v,      z_v = h . e_v

    and as the logits are linear in the embeddings, the last sum is h . ((1 - s) e_y + s mean_v e_v). So there are no
    labels of the size of the logits, nor is there another pass over the logits than those of the softmax: on a CPU
    these passes are most of the loss.

    Args:
        embedding: a `TiedEmbedding` of V ids.
        label_smoothing: s.

    Shapes:
        input: h (batch, n, dim), y (batch, n) int32. Output, all float32, zero where y is padding, but for the logits:
        "logits" (batch, n, V); "loss" (batch, n), the cross entropy above; "nll" (batch, n), -log p_y, in nats; and
        "correct" (batch, n), 1 where no other token is likelier than y.
    """

    def __init__(self, embedding, label_smoothing: float, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.supports_masking = True
        self.embedding = embedding
        self.label_smoothing = label_smoothing

    def call(self, hidden, target):
        # One axis of tokens: with two, XLA on a CPU takes twice as long for the gradients of the logits' product.
        tokens, ids = ops.reshape(hidden, (-1, self.embedding.dim)), ops.reshape(target, (-1,))
        logits = self.embedding(tokens, reverse=True)
        highest = ops.stop_gradient(ops.max(logits, axis=-1, keepdims=True))
        log_sum = ops.log(ops.sum(ops.exp(logits - highest), axis=-1)) + highest[:, 0]
        logit = ops.take_along_axis(logits, ids[:, None], axis=-1)[:, 0]

        smoothing, table = self.label_smoothing, self.embedding.table
        label = (1.0 - smoothing) * ops.take(table, ids, axis=0) + smoothing * ops.mean(table, axis=0)
        terms = {
            "loss": log_sum - ops.sum(tokens * label, axis=-1),
            # The loss without smoothing, yet never below zero: where the product of the logits is rounded coarsely
            # (TF32 on GPUs), what is taken from them has to be one of them.
            "nll": log_sum - logit,
            "correct": ops.cast(logit >= highest[:, 0], "float32"),
        }
        present, shape = ops.not_equal(ids, PAD), ops.shape(target)
        terms = {name: ops.reshape(ops.where(present, term, 0.0), shape) for name, term in terms.items()}
        return {"logits": ops.reshape(logits, (*shape, self.embedding.vocabulary_size)), **terms}


@keras.saving.register_keras_serializable(package="vq_keras")
class Transformer(FromPreset, keras.Model):
    """Encoder and decoder of Vaswani et al. 2017: p(target given source) = prod_t p(y_t | y_0 ... y_{t-1}, source).

    It departs from that paper as the later versions of its released code do: norms stand before each branch and at the
    end of both stacks, and attention has no biases. Source, target and softmax share one table. Residual branches and
    embeddings have dropout, attention weights and hidden units have none; `ResidualBlock` says why. Labels are smoothed
    over the whole vocabulary.

    A functional model. Its input is `{"source", "target"}`, int32 (batch, n) and (batch, m), each sentence ending in
    EOS (1) and padded with 0; the decoder reads EOS, then the target but for its last token. Its outputs are "logits"
    float32 (batch, m, vocabulary_size) of each token given those before it, and what `TokenCrossEntropy` says of each
    target token. What stands in padding changes no output of another position.

    `compile(optimizer)` and `fit(batches)`: the loss is the mean of the smoothed cross entropy over the tokens of a
    batch; the metrics `nll`, in nats without smoothing, and `accuracy` are means over all tokens, whatever batch they
    came in. Layers take the dtype policy that is in force when the model is made; the logits are always float32.

    Args:
        vocabulary_size: number of ids.
        num_encoder_layers: number of encoder blocks.
        num_decoder_layers: number of decoder blocks.
        hidden_dim: width of the model, even.
        num_heads: attention heads; must divide `hidden_dim`.
        feed_forward_dim: units of the hidden layer of each feed-forward part.
        dropout: dropout on the embeddings and on the output of each residual branch.
        label_smoothing: share of a label that is spread over the vocabulary.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> model = Transformer(vocabulary_size=100, **sizes_of("Transformer", "small"))
        >>> source, target = ops.array([[5, 6, 1], [7, 1, 0]]), ops.array([[8, 9, 5, 1], [9, 1, 0, 0]])
        >>> context, cache = model.encode(source), model.init_cache(2, length=10)
        >>> model.score(context, target).shape  # log p of each sentence
        (2,)
        >>> logits, cache = model.step(ops.array([0, 0]), 0, cache, context)
    """

    def __init__(
        self,
        vocabulary_size: int,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        hidden_dim: int = 512,
        num_heads: int = 8,
        feed_forward_dim: int = 2048,
        dropout: float = 0.1,
        label_smoothing: float = 0.1,
        **kwargs,
    ):
        if vocabulary_size < 3:
            raise InputError(f"vocabulary_size is {vocabulary_size}; give at least 3: padding, EOS and a token.")
        if hidden_dim < 2 or hidden_dim % 2 or num_heads < 1 or hidden_dim % num_heads:
            raise InputError(f"hidden_dim is {hidden_dim}; give a positive even multiple of num_heads, {num_heads}.")
        if not 0 <= label_smoothing < 1:
            raise InputError(f"label_smoothing is {label_smoothing}; give a number from 0 up to, not including, 1.")

        embedding = TiedEmbedding(vocabulary_size, hidden_dim, name="embedding")
        positions = SinusoidalPositions(name="positions")
        embedding_dropout = keras.layers.Dropout(dropout, name="embedding_dropout")
        encoder = TransformerEncoder(num_encoder_layers, num_heads, feed_forward_dim, dropout, name="encoder")
        decoder = TransformerDecoder(num_decoder_layers, num_heads, feed_forward_dim, dropout, name="decoder")
        cross_entropy = TokenCrossEntropy(embedding, label_smoothing, name="cross_entropy")

        source = keras.Input((None,), dtype="int32", name="source")
        target = keras.Input((None,), dtype="int32", name="target")
        mask = ops.not_equal(source, PAD)
        memory = encoder(embedding_dropout(positions(embedding(source))), key_mask=mask)
        hidden = decoder(embedding_dropout(positions(embedding(_tokens_before(target)))), memory, key_mask=mask)
        super().__init__(inputs={"source": source, "target": target}, outputs=cross_entropy(hidden, target), **kwargs)

        self.vocabulary_size = vocabulary_size
        self.num_encoder_layers = num_encoder_layers
        self.num_decoder_layers = num_decoder_layers
        self.hidden_dim = hidden_dim
        self.num_heads = num_heads
        self.feed_forward_dim = feed_forward_dim
        self.dropout = dropout
        self.label_smoothing = label_smoothing
        self.embedding = embedding
        self.positions = positions
        self.encoder = encoder
        self.decoder = decoder
        self.cross_entropy = cross_entropy
        self._means = {"nll": keras.metrics.Mean(name="nll"), "correct": keras.metrics.Mean(name="accuracy")}

    def encode(self, source) -> dict:
        """What `step` has to know of source sentences, computed once.

        Args:
            source: (batch, n) int32.

        Returns:
            {"memory": (batch, n, hidden_dim), "mask": (batch, n), false at padding, "projected": the keys and values
            of the memory for each decoder block}.
        """
        mask = ops.not_equal(source, PAD)
        memory = self.encoder(self.positions(self.embedding(source)), key_mask=mask, training=False)
        return {"memory": memory, "mask": mask, "projected": self.decoder.project_memory(memory)}

    def init_cache(self, rows, length: int) -> list:
        """The empty cache of `step` for `rows` sequences (an int or a scalar tensor) of at most `length` tokens."""
        return self.decoder.init_cache(rows, length)

    def grow_cache(self, cache: list, length) -> list:
        """The cache with empty slots up to `length` tokens, an int or a scalar tensor, as many as it has or more."""

        def grown(slots):
            rows, heads, number, dim = ops.shape(slots)
            return ops.concatenate([slots, ops.zeros((rows, heads, length - number, dim), slots.dtype)], axis=2)

        return keras.tree.map_structure(grown, cache)

    def step(self, previous, position, cache: list, context: dict) -> tuple:
        """The logits at one position, from the token before it and the cache.

        Args:
            previous: (rows,) int32, the tokens at `position` - 1; not read at position 0. Rows are the batch, or so
                many beams for each sentence of it, those of one sentence together.
            position: t, an int or an int32 scalar tensor; a sequence goes through 0, 1, 2, ... in order.
            cache: what `init_cache`, or the step before, returned.
            context: what `encode` returned for the batch, which must not be empty.

        Returns:
            logits (rows, vocabulary_size), equal to the output of the model at this position, and the new cache.
        """
        previous = ops.where(ops.equal(position, 0), EOS, previous)
        x = self.positions.step(self.embedding(previous), position)
        hidden, cache = self.decoder.step(x, position, cache, context["projected"], context["mask"])
        return self.embedding(hidden, reverse=True), cache

    def read(self, context: dict, target) -> dict:
        """All positions of given targets at once.

        Args:
            context: what `encode` returned for the batch.
            target: (rows, m) int32; rows as in `step`. The last token need not be EOS.

        Returns:
            what `TokenCrossEntropy` says: "logits" (rows, m, vocabulary_size), of each token given those before it; and
            "nll" (rows, m), of the target's own.
        """
        times = ops.shape(target)[0] // ops.shape(context["mask"])[0]
        memory, mask = (ops.repeat(context[name], times, axis=0) for name in ("memory", "mask"))
        hidden = self.decoder(
            self.positions(self.embedding(_tokens_before(target))), memory, key_mask=mask, training=False
        )
        return self.cross_entropy(hidden, target)

    def score(self, context: dict, target):
        """log p(target given source) of each target in nats, its EOS included: arguments as of `read` -> (rows,)."""
        return -ops.sum(self.read(context, target)["nll"], axis=-1)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The mean smoothed cross entropy of the tokens in nats; `y` and `sample_weight` are not used."""
        return replicas.share_of_loss(ops.sum(y_pred["loss"]) / count_tokens(x))

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Tracks the means over all tokens."""
        count = count_tokens(x)
        for name, mean in self._means.items():
            mean.update_state(ops.sum(y_pred[name]) / count, sample_weight=count)
        return self.get_metrics_result()

    def get_config(self):
        return {
            "name": self.name,
            "vocabulary_size": self.vocabulary_size,
            "num_encoder_layers": self.num_encoder_layers,
            "num_decoder_layers": self.num_decoder_layers,
            "hidden_dim": self.hidden_dim,
            "num_heads": self.num_heads,
            "feed_forward_dim": self.feed_forward_dim,
            "dropout": self.dropout,
            "label_smoothing": self.label_smoothing,
        }


def _tokens_before(target):
    """What the decoder reads: EOS, then the target but for its last token."""
    return ops.concatenate([ops.full_like(target[:, :1], EOS), target[:, :-1]], axis=1)


def count_tokens(x):
    """The number of target tokens that are not padding, at least 1."""
    return ops.maximum(ops.sum(ops.cast(ops.not_equal(x["target"], PAD), "float32")), 1.0)
