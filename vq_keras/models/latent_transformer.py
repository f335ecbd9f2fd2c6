"""The latent Transformer: some latents one by one, then all tokens of a sentence at once."""

import keras
from keras import ops

from vq_keras import bottlenecks, generation, metrics  # noqa: F401  A file names a bottleneck's class: see from_config.
from vq_keras.bottlenecks import replicas
from vq_keras.data.vocabulary import EOS, PAD
from vq_keras.errors import InputError
from vq_keras.layers import (
    Annealing,
    Compressor,
    Decompressor,
    ParallelDecoder,
    SinusoidalPositions,
    TiedEmbedding,
    TransformerDecoder,
    TransformerEncoder,
)
from vq_keras.layers.ctc import SLOTS, Slots
from vq_keras.layers.masks import first
from vq_keras.models.aligned_cross_entropy import AlignedCrossEntropy
from vq_keras.models.code_search import CodeSearch
from vq_keras.models.draft import Draft
from vq_keras.models.scheduled_sampling import ScheduledSampling
from vq_keras.models.slot_reader import read_slots
from vq_keras.models.summed_length import SummedLength
from vq_keras.models.transformer import TokenCrossEntropy, count_tokens
from vq_keras.presets import FromPreset
from vq_keras.priors.soft_labels import CodeCrossEntropy

DECODERS = ("causal_shifted", "bidirectional", "ctc")
# Of the latents' mean and variance: over a hundred steps, which is nothing to a run and thousands of latents.
STATISTICS_MOMENTUM = 0.99


def check_bottleneck(bottleneck) -> None:
    """Raises `InputError` for a bottleneck that a `LatentTransformer` cannot have: one code a latent is predicted."""
    if not bottleneck.has_codes or bottleneck.code_shape((1,)) != (1,):
        raise InputError(
            f"a latent Transformer needs a bottleneck with one code for each latent, not {type(bottleneck).__name__}."
        )


@keras.saving.register_keras_serializable(package="vq_keras")
class LatentTransformer(FromPreset, keras.Model):
    """Translates through a sequence of codes that is 2^n times shorter than the sentence (roy2018 section 3.1).

        source -> encoder -> memory
        target (, memory) -> compressor -> standardised latents -> bottleneck -> codes
        codes, memory -> decompressor -> parallel decoder -> p(target | codes, source)
        codes so far, memory -> predictor -> p(next code | source)
        memory -> length head -> p(number of tokens | source)

    Latents are standardised over the batch, which the released code does not do. A batch of sentences has a latent for
    every tenth code or less, so that codes take hundreds of steps to follow the compressor, whose latents at first all
    move one way, farther than they lie apart: the one code that they pass last wins them all, and the commitment loss
    draws them together there. Without mean and scale of their own they can do neither (Łańcucki et al. 2020, "Robust
    Training of Vector Quantized Bottleneck Models").

    Nor would a decoder that learns to translate from the memory alone ever ask for the codes, which say nothing yet. So
    it first gets the latents as they are, from which a target is easily read, and then codes in their place, more and
    more of them over `startup_steps`, as the released code does in its autoencoders though not in its translator.

    Training reads the codes off the target; translation predicts them one by one, and then all tokens in one pass. The
    loss of a step is, in nats,

        mean over tokens -log p(token) + a mean over codes -log p(code) + mean -log p(number of tokens)
            + p * the bottleneck's losses,    a = 0 until all that the decoder gets comes from codes, then 1

    with soft labels where the bottleneck draws several codes (section 3.2). p is the share of places at which the
    decoder gets what comes from codes: as long as nothing is decoded from them, the commitment loss at its full weight,
    as in the released code, draws all of them to one code, which they do not leave any more. Padding counts in no loss
    and in no statistic, and changes no output: the released code lets its predictor learn the codes of padding, too.

    Predicted codes are seldom those of the target, and what they stand for is then a word further to the left or the
    right, or a word longer. A decoder of one token a place can only hedge against that, and says things twice. With
    connectionist temporal classification it writes two slots a place, whose blanks and repeats are dropped, and its
    loss sums over all ways to write the target there, so that it can learn what to make of predicted codes. Trained so
    far, it gains by bigrams in the loss (`AlignedCrossEntropy`), and by n-grams that choose among what its slots say
    (`read_slots`), a short loop after the one pass.

    A functional model. Its input is `{"source", "target"}`, int32 (batch, n) and (batch, m), each sentence ending in
    EOS (1) and padded with 0; m is a multiple of 2^n. Its outputs are what `TokenCrossEntropy` says of each target
    token, or `AlignedCrossEntropy` of each target; "codes" (batch, latents), -1 at padding; "nll_z" (batch, latents),
    -log p of each code in nats; and "nll_length" (batch,). Metrics: `nll` and, but for "ctc", `accuracy`, means over
    all tokens; with a bigram_share `bigram_f1`; `nll_z`, over all codes; `perplexity` and `codes_in_use`.

    Args:
        vocabulary_size: number of ids.
        bottleneck: a `Bottleneck` with one codebook.
        num_compress_steps: n; a latent stands for 2^n tokens. 3 in roy2018, whose table 4 has 4, too.
        num_encoder_layers: blocks over the source.
        num_predictor_layers: blocks that predict codes.
        num_decoder_layers: blocks that decode tokens.
        hidden_dim: width of the model, even.
        num_heads: attention heads; must divide `hidden_dim`.
        feed_forward_dim: units of the hidden layer of each feed-forward part.
        dropout: of embeddings and residual branches.
        decoder: "causal_shifted" (as released: position t sees what was decompressed before t), "bidirectional" or
            "ctc", which is bidirectional, too, and finds the places of its tokens as told above.
        attend_to_source: whether a block over the latents attends to the memory before they become codes. roy2018
            (section 5, figure 3) finds learning more stable without, and less so.
        predictor_gradient: whether the predictor's loss moves the latents through its inputs, as in the released code:
            codes become easier to predict, at the price that they may say less.
        startup_steps: steps over which codes take the place of the latents in what the decoder gets.
        annealing_steps: steps over which the decoder is weaned off the target's own tokens, as in the released code.
            They need the causal decoder, since any other would see what it is to predict.
        predicted_share: share of the sentences that training decodes from predicted codes, instead of their own, so
            that the decoder learns what to make of the predictor's mistakes; not of a paper. Only "ctc" gains by it:
            the tokens of predicted codes stand elsewhere than those of the target.
        predicted_from_step: the training step from which on they are. From the beginning they would teach the decoder
            that codes mean nothing, which then collapse.
        draft_share: share of the sentences for which the decoder reads in training what it wrote itself, so that
            `decode` can refine a translation; see `Draft`. It needs the bidirectional decoder.
        bigram_share: share of the bigrams in the loss of the tokens, 0 to 1; for "ctc", trained with 0 before.
        ngrams: a language model of targets, `NGrams`, that "ctc" translates with; the attribute may be set later.
        seed: of the annealing, and of the choice of those sentences.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> bottleneck = bottlenecks.SoftEM(num_codes=64, num_samples=5)
        >>> model = LatentTransformer(100, bottleneck, 3, 1, 1, 1, hidden_dim=32, num_heads=4, feed_forward_dim=64)
        >>> source, target = ops.array([[5, 6, 1], [7, 1, 0]]), ops.array([[8, 9, 5, 1, 0, 0, 0, 0]] * 2)
        >>> model({"source": source, "target": target})["codes"].shape
        (2, 1)
        >>> context = model.encode(source)
        >>> codes, log_probs = model.predict_latents(context, model.num_latents(context), max_latents=2)
        >>> model.decode(context, codes)["tokens"].shape
        (2, 1, 16)
    """

    def __init__(
        self,
        vocabulary_size: int,
        bottleneck,
        num_compress_steps: int = 3,
        num_encoder_layers: int = 6,
        num_predictor_layers: int = 6,
        num_decoder_layers: int = 6,
        hidden_dim: int = 512,
        num_heads: int = 8,
        feed_forward_dim: int = 2048,
        dropout: float = 0.1,
        decoder: str = "causal_shifted",
        attend_to_source: bool = False,
        predictor_gradient: bool = True,
        startup_steps: int = 0,
        annealing_steps: int = 0,
        predicted_share: float = 0.0,
        predicted_from_step: int = 0,
        draft_share: float = 0.0,
        bigram_share: float = 0.0,
        ngrams=None,
        seed: int | None = None,
        **kwargs,
    ):
        if decoder not in DECODERS:
            raise InputError(f"decoder is {decoder!r}; give one of {', '.join(DECODERS)}.")
        if annealing_steps and decoder != "causal_shifted":
            raise InputError(
                f"annealing_steps is {annealing_steps}, but a {decoder} decoder would see the target; give 0."
            )
        if draft_share and decoder != "bidirectional":
            raise InputError(
                f"draft_share is {draft_share}, but a {decoder} decoder does not see a whole draft, a token at each "
                "place; give 0."
            )
        if bigram_share and decoder != "ctc":
            raise InputError(
                f"bigram_share is {bigram_share}, but the tokens of a {decoder} decoder have their places; give 0."
            )
        if ngrams is not None and decoder != "ctc":
            raise InputError(f"ngrams are given, but a {decoder} decoder has no slots to read with them; give None.")
        check_bottleneck(bottleneck)
        sizes = (num_heads, feed_forward_dim, dropout)
        embedding = TiedEmbedding(vocabulary_size, hidden_dim, name="embedding")
        positions = SinusoidalPositions(name="positions")
        embedding_dropout = keras.layers.Dropout(dropout, name="embedding_dropout")
        encoder = TransformerEncoder(num_encoder_layers, *sizes, name="encoder")
        compressor = Compressor(num_compress_steps, dropout, name="compressor")
        target_encoder = ParallelDecoder(1, *sizes, name="target_encoder") if attend_to_source else None
        # In float32: what it moves by a hundredth of a difference would not move in half precision.
        standardize = keras.layers.BatchNormalization(
            momentum=STATISTICS_MOMENTUM,
            center=False,
            scale=False,
            synchronized=keras.backend.backend() == "tensorflow",  # On JAX a batch is one array on all devices.
            dtype="float32",
            name="standardize",
        )
        predictor = TransformerDecoder(num_predictor_layers, *sizes, name="predictor")
        to_code_logits = keras.layers.Dense(bottleneck.num_codes, dtype="float32", name="to_code_logits")
        length_head = SummedLength(name="length_head")
        decompressor = Decompressor(num_compress_steps, dropout, name="decompressor")
        startup = Annealing(startup_steps, seed, name="startup")
        annealing = Annealing(annealing_steps, None if seed is None else seed + 1, name="annealing")
        code_search = CodeSearch(bottleneck, positions, predictor, to_code_logits)
        scheduled_sampling = ScheduledSampling(
            code_search,
            predicted_share,
            predicted_from_step,
            None if seed is None else seed + 2,
            name="scheduled_sampling",
        )
        draft = None
        if draft_share:
            draft = Draft(embedding, draft_share, None if seed is None else seed + 3, name="draft")
        stack = TransformerDecoder if decoder == "causal_shifted" else ParallelDecoder
        token_decoder = stack(num_decoder_layers, *sizes, name="decoder")
        slots = Slots(name="slots") if decoder == "ctc" else None
        code_cross_entropy = CodeCrossEntropy(dtype="float32", name="code_cross_entropy")

        source = keras.Input((None,), dtype="int32", name="source")
        target = keras.Input((None,), dtype="int32", name="target")
        # 1. The source.
        mask = ops.not_equal(source, PAD)
        memory = encoder(embedding_dropout(positions(embedding(source))), key_mask=mask)
        # 2. The target's codes.
        present = ops.not_equal(target, PAD)
        num_tokens = ops.sum(ops.cast(present, "int32"), axis=1)
        num_latents = (num_tokens + 2**num_compress_steps - 1) // 2**num_compress_steps
        gold = embedding(target) * ops.cast(present, embedding.compute_dtype)[..., None]
        latents = compressor(gold, num_latents)
        latent_mask = first(num_latents, latents)
        if attend_to_source:
            latents = target_encoder(positions(latents), memory, key_mask=mask, x_mask=latent_mask)
        latents = standardize(latents, mask=latent_mask)
        discrete = bottleneck(latents, mask=latent_mask)
        # 3. What predicts them, and the number of tokens.
        quantized = discrete["quantized"]
        seen = quantized if predictor_gradient else ops.stop_gradient(quantized)
        hidden = predictor(embedding_dropout(positions(shifted(seen))), memory, key_mask=mask)
        code_logits = to_code_logits(hidden)
        nll_z = code_cross_entropy(discrete["samples"], code_logits)
        nll_length = length_head(memory, mask, num_tokens)
        # 4. All tokens at once.
        vectors = scheduled_sampling(startup(latents, quantized), memory, mask, num_latents)
        given = annealing(gold, decompressor(vectors, num_latents))
        if decoder == "causal_shifted":
            hidden = token_decoder(embedding_dropout(positions(shifted(given))), memory, key_mask=mask)
        else:
            x_mask = first(num_latents * 2**num_compress_steps, given)

            def decoded(x):
                return token_decoder(embedding_dropout(positions(x)), memory, key_mask=mask, x_mask=x_mask)

            hidden = decoded(given)
            if draft is not None:
                hidden = decoded(given + draft(hidden, x_mask))
        if slots is None:
            costs = TokenCrossEntropy(embedding, 0.0, name="cross_entropy")(hidden, target)
        else:
            places = num_latents * 2**num_compress_steps
            costs = AlignedCrossEntropy(embedding, bigram_share, name="cross_entropy")(
                slots(hidden), target, SLOTS * places
            )
        outputs = {
            **costs,
            "codes": discrete["codes"],
            "nll_z": nll_z,
            "nll_length": nll_length,
        }
        super().__init__(inputs={"source": source, "target": target}, outputs=outputs, **kwargs)

        self.vocabulary_size = vocabulary_size
        self.bottleneck = bottleneck
        self.num_compress_steps = num_compress_steps
        self.num_encoder_layers = num_encoder_layers
        self.num_predictor_layers = num_predictor_layers
        self.num_decoder_layers = num_decoder_layers
        self.hidden_dim = hidden_dim
        self.num_heads = num_heads
        self.feed_forward_dim = feed_forward_dim
        self.dropout = dropout
        self.decoder = decoder
        self.attend_to_source = attend_to_source
        self.predictor_gradient = predictor_gradient
        self.startup_steps = startup_steps
        self.annealing_steps = annealing_steps
        self.predicted_share = predicted_share
        self.predicted_from_step = predicted_from_step
        self.draft_share = draft_share
        self.bigram_share = bigram_share
        self.ngrams = ngrams
        self.seed = seed
        self.embedding, self.positions = embedding, positions
        self.encoder, self.compressor, self.predictor = encoder, compressor, predictor
        self.target_encoder, self.standardize = target_encoder, standardize
        self.to_code_logits, self.length_head = to_code_logits, length_head
        self.decompressor, self.token_decoder = decompressor, token_decoder
        self.startup, self.annealing, self.draft = startup, annealing, draft
        self.slots, self.code_search = slots, code_search
        self._token_means = {"nll": keras.metrics.Mean(name="nll")}
        if slots is None:
            self._token_means["correct"] = keras.metrics.Mean(name="accuracy")
        if bigram_share:
            self._token_means["bigrams"] = keras.metrics.Mean(name="bigram_f1")
        self._nll_z = keras.metrics.Mean(name="nll_z")
        self._usage = [
            metric(bottleneck.num_codes, name=name)
            for metric, name in ((metrics.Perplexity, "perplexity"), (metrics.CodesInUse, "codes_in_use"))
        ]

    def compress(self, target, context: dict):
        """The codes of target sentences.

        Args:
            target: (batch, m) int32, m a multiple of 2^n.
            context: what `encode` returned; looked at with `attend_to_source` alone.

        Returns:
            (batch, m / 2^n) int32, -1 at padding.
        """
        present = ops.not_equal(target, PAD)
        num_latents = -(-ops.sum(ops.cast(present, "int32"), axis=1) // 2**self.num_compress_steps)
        gold = self.embedding(target) * ops.cast(present, self.embedding.compute_dtype)[..., None]
        latents = self.compressor(gold, num_latents, training=False)
        mask = first(num_latents, latents)
        if self.attend_to_source:
            seen = {"key_mask": context["mask"], "x_mask": mask, "training": False}
            latents = self.target_encoder(self.positions(latents), context["memory"], **seen)
        return ops.where(mask, self.bottleneck.encode(self.standardize(latents, training=False)), -1)

    def encode(self, source) -> dict:
        """What translation has to know of source sentences, computed once.

        Args:
            source: (batch, n) int32.

        Returns:
            {"memory": (batch, n, hidden_dim), "mask": (batch, n), false at padding}.
        """
        mask = ops.not_equal(source, PAD)
        memory = self.encoder(self.positions(self.embedding(source)), key_mask=mask, training=False)
        return {"memory": memory, "mask": mask}

    def num_latents(self, context: dict):
        """The number of codes for the most likely number of tokens of each sentence, int32 (batch,)."""
        tokens = ops.cast(ops.round(self.length_head.mean(context["memory"], context["mask"])), "int32")
        return ops.maximum(-(-tokens // 2**self.num_compress_steps), 1)

    def predict_latents(self, context: dict, num_latents, max_latents: int, beams: int = 1):
        """Codes for sentences, predicted one by one.

        Args:
            context: what `encode` returned.
            num_latents: (batch,) int32, how many for each sentence, 1 to `max_latents`.
            max_latents: steps of the loop.
            beams: of the search; 1 takes the most likely code each time.

        Returns:
            codes (batch, beams, max_latents) int32, -1 where a sentence has no more, the likeliest first, and their log
            probabilities (batch, beams).
        """
        return self.code_search(context["memory"], context["mask"], num_latents, max_latents, beams)

    def decode(self, context: dict, codes, refinements: int = 0) -> dict:
        """All tokens of sentences at once.

        Args:
            context: what `encode` returned.
            codes: (batch, k, latents) int32, k sequences of codes for each sentence, -1 where there are no more.
            refinements: how often the decoder reads its translation and writes it again; needs a `draft_share`.

        Returns:
            {"tokens": (batch, k, m) int32, the most likely token at each place up to EOS, then 0, with m = 2^n latents;
            "log_probs": (batch, k), the sum of their log probabilities given the codes, and given the draft if any}.
            A decoder with "ctc" has 2 m slots, and both are of the best path through them, as its `ngrams` see it.

        Raises:
            InputError: the model has not learned to refine.
        """
        if refinements and self.draft is None:
            raise InputError("this model has not learned to refine what it wrote: train it with a draft_share.")
        choices, latents = ops.shape(codes)[1:]
        codes = ops.reshape(codes, (-1, latents))
        num_latents = ops.sum(ops.cast(codes >= 0, "int32"), axis=1)
        memory, mask = (ops.repeat(context[name], choices, axis=0) for name in ("memory", "mask"))
        x = self.decompressor(self.bottleneck.decode(codes), num_latents, training=False)
        present = first(num_latents * 2**self.num_compress_steps, x)

        def written(x):
            if self.decoder == "causal_shifted":
                hidden = self.token_decoder(self.positions(shifted(x)), memory, key_mask=mask, training=False)
            else:
                hidden = self.token_decoder(self.positions(x), memory, key_mask=mask, x_mask=present, training=False)
            if self.slots is None:
                return generation.parallel(self.embedding(hidden, reverse=True), present, EOS)
            logits = self.embedding(self.slots(hidden), reverse=True)
            return read_slots(logits, ops.repeat(present, SLOTS, axis=1), self.ngrams)

        tokens, log_probs = written(x)
        for _ in range(refinements):
            tokens, log_probs = written(x + self.draft.read(tokens))
        return {
            "tokens": ops.reshape(tokens, (-1, choices, ops.shape(tokens)[1])),
            "log_probs": ops.reshape(log_probs, (-1, choices)),
        }

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The loss above; `y` and `sample_weight` are not used."""
        present = ops.cast(y_pred["codes"] >= 0, "float32")
        nll_z = ops.sum(y_pred["nll_z"]) / ops.maximum(ops.sum(present), 1.0)
        loss = ops.sum(y_pred["loss"]) / count_tokens(x)
        loss = loss + self.startup.done() * self.annealing.done() * nll_z + ops.mean(y_pred["nll_length"])
        return replicas.share_of_loss(loss + self.startup.share() * self.annealing.share() * sum(self.losses))

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Tracks the means over all tokens and codes."""
        count = count_tokens(x)
        for name, mean in self._token_means.items():
            mean.update_state(ops.sum(y_pred[name]) / count, sample_weight=count)
        codes = ops.maximum(ops.sum(ops.cast(y_pred["codes"] >= 0, "float32")), 1.0)
        self._nll_z.update_state(ops.sum(y_pred["nll_z"]) / codes, sample_weight=codes)
        for usage in self._usage:
            usage.update_state(y_pred["codes"])
        return self.get_metrics_result()

    def get_config(self):
        names = ("name", "vocabulary_size", "num_compress_steps", "num_encoder_layers", "num_predictor_layers")
        names += ("num_decoder_layers", "hidden_dim", "num_heads", "feed_forward_dim", "dropout", "decoder")
        names += ("attend_to_source", "predictor_gradient", "startup_steps", "annealing_steps", "predicted_share")
        names += ("predicted_from_step", "draft_share", "bigram_share", "seed")
        config = {name: getattr(self, name) for name in names}
        parts = {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in ("bottleneck", "ngrams")}
        return {**config, **parts}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = {
            name: keras.saving.deserialize_keras_object(config.get(name), custom_objects)
            for name in ("bottleneck", "ngrams")
        }
        return cls(**{**config, **parts})


def shifted(x):
    """x (batch, n, dim) one position later: zeros, then all but the last."""
    return ops.pad(x, [[0, 0], [1, 0], [0, 0]])[:, :-1]
