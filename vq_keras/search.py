"""From source ids to the best target ids that a translation model has, as Keras models that compile and export."""

import math

import keras
from keras import ops

from vq_keras import generation
from vq_keras.data.vocabulary import EOS, PAD
from vq_keras.errors import InputError
from vq_keras.models.target_lengths import MAX_OFFSET

# A target has at most so many tokens more than its source (Vaswani et al. 2017, section 6.1).
MORE_TOKENS = 50
# Of their beam search over 4 beams.
LENGTH_PENALTY = 0.6


class AutoregressiveSearch(keras.Model):
    """The likeliest translations of a `Transformer`, token by token.

    Args:
        model: the trained model.
        beams: 1 takes the likeliest token each time; more search with so many open sentences.
        length_penalty: of the beam search, as `generation.beam_search` has it. 0.6 and 4 beams are those of Vaswani
            et al. 2017.
        stages: whether the cache grows on the way (`generation.stages`), which is quicker, but has the loop three times
            in the graph.

    Shapes:
        input: source ids int32 (batch, n), each row ending in EOS and padded with 0. Output {"tokens": int32
        (batch, n + 50), each row ending in EOS and padded with 0, "scores": float32 (batch,)}, log probabilities in
        nats, over the length penalty where there are beams. A sentence gets at most 50 tokens more than it has itself,
        however wide its batch; greedy search may come to so many without EOS. And it gets one token at least: with
        smoothed labels nothing at all is so often the likeliest translation (Stahlberg and Byrne 2019, "On NMT Search
        Errors and Model Errors: Cat Got Your Tongue?") that one in a hundred captions had none. Probabilities are
        those of translations that have a token.

    Example:
        >>> search = AutoregressiveSearch(model, beams=4)
        >>> search.predict_on_batch(source)["tokens"]
    """

    def __init__(self, model, beams: int = 1, length_penalty: float = LENGTH_PENALTY, stages: bool = True, **kwargs):
        super().__init__(**kwargs)
        if beams < 1:
            raise InputError(f"beams is {beams}; give at least 1.")
        if not length_penalty >= 0:
            raise InputError(f"length_penalty is {length_penalty}; give 0 or a positive number.")
        self.model = model
        self.beams = beams
        self.length_penalty = length_penalty
        self.stages = stages

    def call(self, source):
        rows, length = ops.shape(source)[0], ops.shape(source)[1] + MORE_TOKENS
        lengths = _lengths(source) + MORE_TOKENS
        context = self.model.encode(source)
        cache = self.model.init_cache(rows * self.beams, 0 if self.stages else length)
        bounds = {"end": EOS, "lengths": lengths, "grow": self.model.grow_cache if self.stages else None}
        start = ops.full((rows,), EOS, dtype="int32")

        def step(previous, position, cache):
            logits, cache = self.model.step(previous, position, cache, context)
            ends = ops.equal(ops.arange(self.model.vocabulary_size), EOS)
            return ops.where(ops.logical_and(ends, ops.equal(position, 0)), generation.NEVER, logits), cache

        if self.beams == 1:
            tokens, scores = generation.greedy(step, cache, length, start, **bounds)
        else:
            tokens, scores = generation.beam_search(
                step, cache, length, start, self.beams, length_penalty=self.length_penalty, best=1, **bounds
            )
            tokens, scores = tokens[:, 0], scores[:, 0]
        return {"tokens": tokens, "scores": scores}


class LatentSearch(keras.Model):
    """Translations of a `LatentTransformer`: the codes one by one, then all tokens at once.

    With several candidates this is what Gu et al. 2018 call noisy parallel decoding, for codes: the likeliest code
    sequences of a beam search are all decoded, as one batch, and the likeliest translation is kept, by the probability
    of its codes and its tokens given them, or by that of a judge, which reads all candidates in one pass.

    Args:
        model: the trained model.
        candidates: code sequences a sentence; 1 takes the likeliest code each time.
        judge: an autoregressive `Transformer` with the same vocabulary, whose probability, over the length penalty of
            its own beam search, decides.
        refinements: how often the decoder reads its translations and writes them again, of a model that learned it.
        length: "learned", by the model's length head, or "double": two tokens for each of the source, the rule of the
            released code of roy2018.

    Shapes:
        input: source ids int32 (batch, n), each row ending in EOS and padded with 0. Output {"tokens": int32
        (batch, m), each row padded with 0, "scores": float32 (batch,)}, log probabilities in nats, a judge's over the
        length penalty.

    Example:
        >>> search = LatentSearch(model, candidates=4, judge=teacher)
        >>> search.predict_on_batch(source)["tokens"]
    """

    LENGTHS = ("learned", "double")

    def __init__(self, model, candidates: int = 1, judge=None, refinements: int = 0, length: str = "learned", **kwargs):
        super().__init__(**kwargs)
        _check_candidates(candidates, judge)
        if length not in self.LENGTHS:
            raise InputError(f"length is {length!r}; give one of {', '.join(self.LENGTHS)}.")
        if refinements < 0 or (refinements and not model.draft_share):
            raise InputError(f"refinements is {refinements}; give 0, or more if the model has a draft_share.")
        self.model = model
        self.candidates = candidates
        self.judge = judge
        self.refinements = refinements
        self.length = length

    def call(self, source):
        context = self.model.encode(source)
        codes, code_scores = self.predict_latents(context)
        return self._best(source, self.model.decode(context, codes, self.refinements), code_scores)

    def in_any_graph(self, source) -> dict:
        """What a call returns, without decoding places that no sentence of the batch has.

        A sentence may have twice the tokens of its source, but half of those places are empty as a rule, and to decode
        them all is most of the work. It takes a graph in which the number of codes is a tensor: a SavedModel's, not
        one that is compiled for known shapes.
        """
        context = self.model.encode(source)
        codes, code_scores = self.predict_latents(context)
        return self._best(source, self.decode_in_any_graph(context, codes), code_scores)

    def decode_in_any_graph(self, context: dict, codes) -> dict:
        """What the model's `decode` returns, of the same shapes, without decoding places that no sentence has."""
        width = ops.shape(codes)[2]
        needed = ops.maximum(ops.max(ops.sum(ops.cast(codes >= 0, "int32"), axis=2)), 1)
        decoded = self.model.decode(context, codes[:, :, :needed], self.refinements)
        tokens = decoded["tokens"]
        missing = ops.shape(tokens)[2] // needed * (width - needed)
        return {**decoded, "tokens": ops.pad(tokens, [[0, 0], [0, 0], [0, missing]])}

    def in_room(self, source, room: float) -> dict:
        """The search with fewer places, for a graph of known shapes.

        Args:
            source: int32 (batch, n) as for a call, n known.
            room: the share, over 0 and up to 1, of the latents that a source of n tokens may have.

        Returns:
            What a call returns, and "fits" (batch,) bool: whether there are places for all latents of a sentence. If
            not, it needs more room, and its tokens mean nothing.
        """
        context = self.model.encode(source)
        wanted, most = self._num_latents(context)
        places = math.ceil(room * most)
        numbers = ops.minimum(wanted, places)
        codes, code_scores = self.model.predict_latents(context, numbers, places, self.candidates)
        best = self._best(source, self.model.decode(context, codes, self.refinements), code_scores)
        return {**best, "fits": wanted <= places}

    def predict_latents(self, context: dict) -> tuple:
        """The first half of the search.

        Args:
            context: what the model's `encode` says of the source.

        Returns:
            codes int32 (batch, candidates, latents), -1 where a sentence has no more, with their log probabilities
            (batch, candidates). A sentence gets codes for twice the tokens that it has itself at most, however wide
            its batch.
        """
        return self.model.predict_latents(context, *self._num_latents(context), self.candidates)

    def _num_latents(self, context):
        """Of each sentence, and of the longest that there may be."""
        tokens_a_latent = 2**self.model.num_compress_steps
        num_latents = -(-2 * ops.sum(ops.cast(context["mask"], "int32"), axis=1) // tokens_a_latent)
        if self.length == "learned":
            num_latents = ops.minimum(self.model.num_latents(context), num_latents)
        return num_latents, -(-2 * ops.shape(context["mask"])[1] // tokens_a_latent)

    def _best(self, source, decoded, code_scores):
        return _best(source, decoded["tokens"], code_scores + decoded["log_probs"], self.judge)


class ParallelSearch(keras.Model):
    """Translations of a `ParallelTransformer`: all tokens at once, for one length or several.

    Several candidates are the noisy parallel decoding of Gu et al. 2018, section 4: for the likeliest lengths, or for
    the likeliest fertilities and such as are drawn, the translations are all decoded, as one batch, and the likeliest
    is kept, by the probability of its length or fertilities and its tokens given them, or by that of a judge. A
    hundred candidates ask for a hundred times the memory of one: give them small batches.

    Args:
        model: the trained model.
        candidates: translations to choose from; 1 takes the likeliest length or fertilities.
        judge: an autoregressive `Transformer` with the same vocabulary, whose probability, over the length penalty of
            its own beam search, decides.
        seed: of the fertilities that are drawn.

    Shapes:
        input: source ids int32 (batch, n), each row ending in EOS and padded with 0. Output {"tokens": int32
        (batch, 2 n + 8), each row padded with 0, "scores": float32 (batch,)}, log probabilities in nats, a judge's over
        the length penalty.

    Example:
        >>> search = ParallelSearch(model, candidates=10, judge=teacher)
        >>> search.predict_on_batch(source)["tokens"]
    """

    def __init__(self, model, candidates: int = 1, judge=None, seed: int = 0, **kwargs):
        super().__init__(**kwargs)
        _check_candidates(candidates, judge)
        if model.lengths == "ctc" and candidates > 1:
            raise InputError(f"candidates is {candidates}; a model that predicts no lengths has 1.")
        if model.lengths == "classifier" and candidates > 2 * MAX_OFFSET + 1:
            raise InputError(f"candidates is {candidates}; a length classifier knows {2 * MAX_OFFSET + 1} lengths.")
        self.model = model
        self.candidates = candidates
        self.judge = judge
        self.seed = seed

    def call(self, source):
        context = self.model.encode(source)
        copies, scores = self.model.propose(context, self.candidates, self.seed)
        decoded = self.model.decode(context, copies)
        return _best(source, decoded["tokens"], scores + decoded["log_probs"], self.judge)


def graph_function(search):
    """What a SavedModel has of a search: `LatentSearch.in_any_graph`, or the search itself.

    Example:
        >>> tf.function(graph_function(search), input_signature=[tf.TensorSpec((None, None), "int32")])
    """
    return getattr(search, "in_any_graph", search)


def _lengths(source):
    return ops.sum(ops.cast(ops.not_equal(source, PAD), "int32"), axis=1)


def _check_candidates(candidates, judge):
    if candidates < 1:
        raise InputError(f"candidates is {candidates}; give at least 1.")
    if judge is not None and candidates == 1:
        raise InputError("a judge has nothing to choose from with one candidate; give more.")


def _ended(tokens):
    """Each row with an EOS behind its last token where it has none: else a judge takes it for a beginning.

    A decoder of all tokens at once has no room for one when it is given too few places, and the beginning of a sentence
    is always likelier than the sentence: one word, the likeliest of all.
    """
    tokens = ops.pad(tokens, [[0, 0], [0, 1]])
    ends = ops.any(ops.equal(tokens, EOS), axis=1, keepdims=True)
    behind = ops.equal(ops.arange(ops.shape(tokens)[1], dtype="int32"), _lengths(tokens)[:, None])
    return ops.where(ops.logical_and(behind, ops.logical_not(ends)), EOS, tokens)


def _best(source, tokens, scores, judge):
    """Of the candidates (batch, k, m) of each sentence the best, by its own score (batch, k) or by a judge's.

    A judge's score is that of its beam search. Gu et al. 2018 take the probability itself, by which the best of a
    hundred lengths is often the shortest: 8 BLEU on captions.
    """
    if judge is not None:
        number, length = ops.shape(tokens)[1:]
        ended = _ended(ops.reshape(tokens, (-1, length)))
        log_probs = judge.score(judge.encode(source), ended)
        scores = ops.reshape(log_probs / generation.gnmt_penalty(_lengths(ended), LENGTH_PENALTY), (-1, number))
    best = ops.cast(ops.top_k(scores, 1)[1], "int32")
    tokens = ops.take_along_axis(tokens, best[..., None], axis=1)[:, 0]
    return {"tokens": tokens, "scores": ops.take_along_axis(scores, best, axis=1)[:, 0]}
