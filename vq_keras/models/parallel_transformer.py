"""The non-autoregressive Transformer: all tokens of a translation at once, each for itself."""

import keras
from keras import ops

from vq_keras import generation
from vq_keras.bottlenecks import replicas
from vq_keras.data.vocabulary import EOS, PAD
from vq_keras.errors import InputError
from vq_keras.layers import ParallelDecoder, SinusoidalPositions, TiedEmbedding, TransformerEncoder
from vq_keras.models.aligned_cross_entropy import AlignedCrossEntropy
from vq_keras.models.slot_reader import read_slots
from vq_keras.models.target_lengths import FertilityPredictor, LengthClassifier, StretchedSource
from vq_keras.models.transformer import TokenCrossEntropy, count_tokens
from vq_keras.presets import FromPreset

LENGTHS = {"classifier": LengthClassifier, "fertility": FertilityPredictor, "ctc": StretchedSource}


@keras.saving.register_keras_serializable(package="vq_keras")
class ParallelTransformer(FromPreset, keras.Model):
    """Translates without a loop: p(target | source) = p(copies | source) prod_t p(y_t | copies, source).

        source -> encoder -> memory -> length classifier or fertilities -> copies of source tokens
        copies, memory -> parallel decoder -> p(token) at each place

    The baseline of the latent-variable models (Gu et al. 2018): a token knows nothing of the others but through the
    copies, which is why such models learn from a teacher's translations (`recipes/distill.py`) rather than from
    people's. Three forms:

    - "classifier", that of fairseq's nonautoregressive_transformer: the length of the target is predicted, and the
      source stretched to it.
    - "fertility", that of the paper: it is predicted how often each source token is copied. Training needs the true
      fertilities, `vq_keras.data.alignment`.
    - "ctc", that of Libovický and Helcl 2018: nothing is predicted, the source is stretched to more places than a
      translation has tokens, and the loss sums over all ways to write the target there, with blanks between
      (`vq_keras.layers.ctc`). A token may then stand wherever the others leave it room. Trained so far, it gains by
      bigrams in the loss (`AlignedCrossEntropy`; Shao and Feng 2022), and by n-grams that choose among what its places
      say, one after the other (`read_slots`).

    The loss of a step, in nats: mean over tokens -log p(token) + mean -log p of each length or fertility, if any. It
    departs from Gu et al. in what the later code departs in, too: no positional attention, no mask that hides a
    position from itself, and no fine-tuning of the fertilities by the teacher's probability.

    A functional model. Its input is `{"source", "target"}`, int32 (batch, n) and (batch, m), each sentence ending in
    EOS (1) and padded with 0, and for fertilities "fertility", int32 (batch, n), which add up to the length of the
    target. Its outputs are what `TokenCrossEntropy` says of each target token, or `AlignedCrossEntropy` of each target,
    and "nll_length" (batch,) or "nll_fertility" (batch, n), 0 at padding, in nats. What stands in padding changes
    nothing. Metrics: `nll` and, but for "ctc", `accuracy`, means over all tokens; with a bigram_share `bigram_f1`;
    `nll_length`, over sentences, or `nll_fertility`, over source tokens.

    Args:
        vocabulary_size: number of ids.
        lengths: "classifier", "fertility" or "ctc".
        num_encoder_layers: blocks over the source.
        num_decoder_layers: blocks that decode tokens.
        hidden_dim: width of the model, even.
        num_heads: attention heads; must divide `hidden_dim`.
        feed_forward_dim: units of the hidden layer of each feed-forward part.
        dropout: of embeddings and residual branches.
        bigram_share: share of the bigrams in the loss of the tokens, 0 to 1; for "ctc", trained with 0 before.
        ngrams: a language model of targets, `NGrams`, that "ctc" translates with; the attribute may be set later.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> from vq_keras.models.sizes import sizes_of
        >>> model = ParallelTransformer(vocabulary_size=100, **sizes_of("Transformer", "small"))
        >>> context = model.encode(ops.array([[5, 6, 1], [7, 1, 0]]))
        >>> copies, log_probs = model.propose(context, number=4)  # of four lengths
        >>> model.decode(context, copies)["tokens"].shape
        (2, 4, 14)
    """

    def __init__(
        self,
        vocabulary_size: int,
        lengths: str = "classifier",
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        hidden_dim: int = 512,
        num_heads: int = 8,
        feed_forward_dim: int = 2048,
        dropout: float = 0.1,
        bigram_share: float = 0.0,
        ngrams=None,
        **kwargs,
    ):
        if lengths not in LENGTHS:
            raise InputError(f"lengths is {lengths!r}; give one of {', '.join(LENGTHS)}.")
        if bigram_share and lengths != "ctc":
            raise InputError(
                f"bigram_share is {bigram_share}, but with lengths {lengths!r} each token has its place; give 0."
            )
        if ngrams is not None and lengths != "ctc":
            raise InputError(f"ngrams are given, but with lengths {lengths!r} there are no slots to read; give None.")
        sizes = (num_heads, feed_forward_dim, dropout)
        embedding = TiedEmbedding(vocabulary_size, hidden_dim, name="embedding")
        positions = SinusoidalPositions(name="positions")
        embedding_dropout = keras.layers.Dropout(dropout, name="embedding_dropout")
        encoder = TransformerEncoder(num_encoder_layers, *sizes, name="encoder")
        target_lengths = LENGTHS[lengths](name="target_lengths")
        decoder = ParallelDecoder(num_decoder_layers, *sizes, name="decoder")

        inputs = {
            name: keras.Input((None,), dtype="int32", name=name)
            for name in ("source", "target", *(["fertility"] if lengths == "fertility" else []))
        }
        source, target = inputs["source"], inputs["target"]
        mask = ops.not_equal(source, PAD)
        memory = encoder(embedding_dropout(positions(embedding(source))), key_mask=mask)
        given = target_lengths(memory, *inputs.values())
        places = ops.not_equal(given["copies"], PAD)
        hidden = decoder(embedding_dropout(positions(embedding(given["copies"]))), memory, key_mask=mask, x_mask=places)
        if lengths == "ctc":
            num_places = ops.sum(ops.cast(places, "int32"), axis=1)
            outputs = AlignedCrossEntropy(embedding, bigram_share, name="cross_entropy")(hidden, target, num_places)
        else:
            outputs = TokenCrossEntropy(embedding, 0.0, name="cross_entropy")(hidden, target)
            outputs[f"nll_{target_lengths.predicts}"] = given["nll"]
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)

        self.vocabulary_size = vocabulary_size
        self.lengths = lengths
        self.num_encoder_layers = num_encoder_layers
        self.num_decoder_layers = num_decoder_layers
        self.hidden_dim = hidden_dim
        self.num_heads = num_heads
        self.feed_forward_dim = feed_forward_dim
        self.dropout = dropout
        self.bigram_share = bigram_share
        self.ngrams = ngrams
        self.embedding, self.positions = embedding, positions
        self.encoder, self.target_lengths, self.token_decoder = encoder, target_lengths, decoder
        self._token_means = {"nll": keras.metrics.Mean(name="nll")}
        if bigram_share:
            self._token_means["bigrams"] = keras.metrics.Mean(name="bigram_f1")
        self._nll_lengths = None
        if lengths != "ctc":
            self._token_means["correct"] = keras.metrics.Mean(name="accuracy")
            self._nll_lengths = keras.metrics.Mean(name=f"nll_{target_lengths.predicts}")

    def encode(self, source) -> dict:
        """What translation has to know of source sentences, computed once.

        Args:
            source: (batch, n) int32.

        Returns:
            {"source", "memory": (batch, n, hidden_dim), "mask": (batch, n), false at padding}.
        """
        mask = ops.not_equal(source, PAD)
        memory = self.encoder(self.positions(self.embedding(source)), key_mask=mask, training=False)
        return {"source": source, "memory": memory, "mask": mask}

    def propose(self, context: dict, number: int, seed: int = 0) -> tuple:
        """Ways to copy each source, for as many translations: of the likeliest lengths, or drawn fertilities.

        Args:
            context: what `encode` returned.
            number: of candidates for each sentence; "ctc" has one.
            seed: of the fertilities' draws; the likeliest fertilities are always the first candidate.

        Returns:
            copies (batch, number, m) int32, 0 behind the end of each, m = 2 n + 8, and the log probabilities
            (batch, number) of their lengths or fertilities.
        """
        return self.target_lengths.propose(context["memory"], context["source"], number, seed)

    def decode(self, context: dict, copies) -> dict:
        """All tokens of sentences at once.

        Args:
            context: what `encode` returned.
            copies: (batch, k, m) int32, k candidates for each sentence, as `propose` gives them.

        Returns:
            {"tokens": (batch, k, m) int32, the most likely token at each place up to EOS, without repeats and blanks
            for "ctc" (see `read_slots`), then 0; "log_probs": (batch, k), the sum of their log probabilities given the
            copies}.
        """
        number, size = ops.shape(copies)[1:]
        copies = ops.reshape(copies, (-1, size))
        present = ops.not_equal(copies, PAD)
        memory, mask = (ops.repeat(context[name], number, axis=0) for name in ("memory", "mask"))
        x = self.positions(self.embedding(copies))
        hidden = self.token_decoder(x, memory, key_mask=mask, x_mask=present, training=False)
        logits = self.embedding(hidden, reverse=True)
        if self.lengths == "ctc":
            tokens, log_probs = read_slots(logits, present, self.ngrams)
        else:
            tokens, log_probs = generation.parallel(logits, present, EOS)
        return {
            "tokens": ops.reshape(tokens, (-1, number, size)),
            "log_probs": ops.reshape(log_probs, (-1, number)),
        }

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The loss above; `y` and `sample_weight` are not used."""
        loss = ops.sum(y_pred["loss"]) / count_tokens(x)
        if self._nll_lengths is not None:
            loss += ops.sum(y_pred[self._nll_lengths.name]) / self.target_lengths.count(x["source"])
        return replicas.share_of_loss(loss)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Tracks the means over all tokens, and over all lengths or fertilities."""
        count = count_tokens(x)
        for name, mean in self._token_means.items():
            mean.update_state(ops.sum(y_pred[name]) / count, sample_weight=count)
        if self._nll_lengths is not None:
            count = self.target_lengths.count(x["source"])
            self._nll_lengths.update_state(ops.sum(y_pred[self._nll_lengths.name]) / count, sample_weight=count)
        return self.get_metrics_result()

    def get_config(self):
        return {
            "name": self.name,
            "vocabulary_size": self.vocabulary_size,
            "lengths": self.lengths,
            "num_encoder_layers": self.num_encoder_layers,
            "num_decoder_layers": self.num_decoder_layers,
            "hidden_dim": self.hidden_dim,
            "num_heads": self.num_heads,
            "feed_forward_dim": self.feed_forward_dim,
            "dropout": self.dropout,
            "bigram_share": self.bigram_share,
            "ngrams": keras.saving.serialize_keras_object(self.ngrams),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        ngrams = keras.saving.deserialize_keras_object(config.get("ngrams"), custom_objects)
        return cls(**{**config, "ngrams": ngrams})
