"""What a served translator of ids offers: whole translations, and their parts."""

import keras
import numpy as np
from keras import ops

from vq_keras.chunks import in_chunks
from vq_keras.data.vocabulary import EOS, PAD
from vq_keras.errors import InputError
from vq_keras.id_requests import bounded_source, checked_codes, checked_memory, checked_target
from vq_keras.models.latent_transformer import LatentTransformer
from vq_keras.models.parallel_transformer import ParallelTransformer
from vq_keras.models.transformer import Transformer
from vq_keras.saved_model import Signature
from vq_keras.search import MORE_TOKENS, AutoregressiveSearch, LatentSearch, ParallelSearch, graph_function
from vq_keras.serving_check import LENGTH

_IDS = ((None, None), "int32")
# Padded source ids that are translated at once, over all beams or candidates: enough for a processor to be busy, and
# half a gigabyte for a vocabulary of 4,000, most of it logits of all places.
_PLACES = 2048
# Shorter than the first is as quick.
_SHORTEST_BUCKET = 8

WORDS = {
    "source_ids": "ids of the vocabulary, a sentence a row that ends in EOS (1) and is padded with 0",
    "target_ids": "ids of the vocabulary, a translation a row, padded with 0, at times without an EOS (1) before",
    "score": "log probability of the translation in nats, as far as the model tells it; of beams, over a penalty; "
    "n-grams choose tokens, but do not count in it",
    "log_prob": "log probability of the output beside it, or of the target, in nats",
    "truncated": "whether the source was too long, and was translated as far as it was read",
    "memory": "what the encoder says of each source id",
    "mask": "1 at the ids of the source, 0 at padding",
    "codes": "the discrete latents of the translation, padded with -1",
}
ABOUT = {
    "translate": "Translates, by the likeliest token, codes or length each time, and by n-grams if the model has any.",
    "translate_beam": "Translates, by beam search.",
    "translate_candidates": "Translates, the likeliest of several candidates.",
}


def searches(model, beams: int | None = None, candidates: int | None = None) -> dict[str, keras.Model]:
    """The ways to translate that a model offers, by the names of their signatures, the default first.

    Args:
        model: a `Transformer` (`translate`, which is greedy, and `translate_beam`), or a `LatentTransformer` or
            `ParallelTransformer` (`translate`, by the likeliest codes or lengths, and `translate_candidates`).
        beams: of a `Transformer`'s beam search; 4 where not given.
        candidates: of the other models; 10 where not given.

    Raises:
        InputError: for another model, or an argument that is out of range or not one of the model's.
    """
    for name, value in (("beams", beams), ("candidates", candidates)):
        if value is not None and value < 2:
            raise InputError(f"{name} is {value}; give at least 2: `translate` does with one.")
    if isinstance(model, Transformer):
        if candidates is not None:
            raise InputError("a Transformer has no candidates to choose from: give beams.")
        return {"translate": AutoregressiveSearch(model), "translate_beam": AutoregressiveSearch(model, beams or 4)}
    for kind, search in ((LatentTransformer, LatentSearch), (ParallelTransformer, ParallelSearch)):
        if isinstance(model, kind):
            if beams is not None:
                raise InputError(f"a {kind.__name__} has no beam search over tokens: give candidates.")
            if getattr(model, "lengths", None) == "ctc":
                if candidates is not None:
                    raise InputError("a model that predicts no lengths has no candidates to choose from.")
                return {"translate": search(model)}
            return {"translate": search(model), "translate_candidates": search(model, candidates or 10)}
    raise InputError(f"a {type(model).__name__} does not translate: give a model of vq_keras that does.")


def length_buckets(max_length: int) -> list[int]:
    """Lengths of sources, in ids, for requests of all sizes: 8, 16, 32, ... and the greatest.

    Example:
        >>> length_buckets(100)
        [8, 16, 32, 64, 100]
    """
    lengths = [max_length]
    while lengths[0] > _SHORTEST_BUCKET:
        lengths.insert(0, 2 ** ((lengths[0] - 1).bit_length() - 1))
    return lengths


def translation(search, max_length: int):
    """A search as a function of any ids that a client may send, source_ids -> target_ids, score, truncated.

    Args:
        search: of `searches`.
        max_length: the ids of the longest source, EOS among them, at least 2.

    Returns:
        the function. A row without an id before its EOS has an empty translation, all 0, with the score 0.

    Raises:
        InputError: `max_length` is below 2.
    """
    if max_length < 2:
        raise InputError(f"max_length is {max_length}; give at least 2: a token and EOS.")
    choices = max(getattr(search, "beams", 1), getattr(search, "candidates", 1))
    chunked = in_chunks(graph_function(search), _PLACES // choices)

    def translate(source_ids):
        source, truncated = bounded_source(source_ids, max_length, search.model.vocabulary_size)
        outputs = chunked(source)
        empty = ops.equal(source[:, 0], EOS)
        return {
            "target_ids": ops.where(empty[:, None], PAD, outputs["tokens"]),
            "score": ops.where(empty, 0.0, outputs["scores"]),
            "truncated": truncated,
        }

    return translate


def id_signatures(found: dict[str, keras.Model], max_length: int) -> dict[str, Signature]:
    """Signatures from ids to ids, for `vq_keras.saved_model.write`.

    Sources and targets are int32 (batch, n), each row ending in EOS (1) and padded with 0; what follows the first EOS
    counts as padding. What a row gives does not depend on the others of its batch, nor on its padding. A source of
    more than `max_length` ids is cut to them, the last one EOS, and `truncated` (batch,) bool says so; a source without
    ids is EOS alone. Batches may have any size: a part is done after the other. Ids that the vocabulary does not have,
    and tensors that do not fit each other, are refused, with the status INVALID_ARGUMENT.

    - each search: source_ids -> target_ids (batch, m), padded with 0; score (batch,), as the search defines it; and
      truncated.
    - `encode`: source_ids -> memory (batch, n, dim) float32, mask (batch, n) int32, and truncated; n is `max_length` at
      most.
    - `predict_latents`, of a `LatentTransformer`: memory, mask -> codes (batch, latents) int32, -1 where a sentence has
      no more, and their log_prob (batch,).
    - `decode`, of a `LatentTransformer`: memory, mask, codes -> target_ids and their log_prob given the codes. After
      the two before that is `translate`, whose score is the sum of both log_prob.
    - `score`, of a `Transformer`: source_ids, target_ids -> log_prob (batch,), of the target given the source, in
      nats; and truncated. A target has at most 50 columns more than `max_length`.

    A server must not fill up requests of `predict_latents` and `decode` to one width, as TF Serving's
    `pad_variable_length_inputs` does: it would do so with their first elements, which count.

    Args:
        found: what `searches` gave.
        max_length: the ids of the longest source, EOS among them.

    Raises:
        InputError: `max_length` is below 2; of a `LatentTransformer` below 8.
    """
    model = found["translate"].model
    buckets = length_buckets(max_length)
    sources = [_example(length) for length in buckets]
    signatures = {
        name: Signature(
            translation(search, max_length),
            {"source_ids": _IDS},
            ABOUT[name],
            WORDS,
            [{"source_ids": source} for source in sources],
        )
        for name, search in found.items()
    }

    def encoded(source):
        context = model.encode(source)
        return {"memory": ops.cast(context["memory"], "float32"), "mask": ops.cast(context["mask"], "int32")}

    chunked = in_chunks(encoded, _PLACES)

    def encode(source_ids):
        source, truncated = bounded_source(source_ids, max_length, model.vocabulary_size)
        return {**chunked(source), "truncated": truncated}

    signatures["encode"] = Signature(
        encode,
        {"source_ids": _IDS},
        "Reads sources, for the parts of a translation.",
        WORDS,
        [{"source_ids": source} for source in sources],
    )
    if isinstance(model, LatentTransformer):
        signatures |= _latent_signatures(found["translate"], max_length, buckets)
    if isinstance(model, Transformer):
        scored = in_chunks(lambda source, target: {"log_prob": model.score(model.encode(source), target)}, _PLACES)

        def score(source_ids, target_ids):
            source, truncated = bounded_source(source_ids, max_length, model.vocabulary_size)
            target = checked_target(target_ids, source, max_length + MORE_TOKENS, model.vocabulary_size)
            return {**scored(source, target), "truncated": truncated}

        signatures["score"] = Signature(
            score,
            {"source_ids": _IDS, "target_ids": _IDS},
            "Says how likely given translations are.",
            WORDS,
            [{"source_ids": source, "target_ids": source} for source in sources],
        )
    return signatures


def _latent_signatures(search, max_length, buckets):
    if max_length < LENGTH:
        # A memory of more columns than sources may have is refused, and the check's would be.
        raise InputError(f"max_length is {max_length}; give at least {LENGTH}, the columns of the check's memories.")
    model = search.model
    tokens_a_latent = 2**model.num_compress_steps

    def predicted(memory, mask):
        codes, log_probs = search.predict_latents({"memory": memory, "mask": mask})
        return {"codes": codes[:, 0], "log_prob": log_probs[:, 0]}

    def decoded(memory, mask, codes):
        outputs = search.decode_in_any_graph({"memory": memory, "mask": mask}, codes[:, None])
        return {"target_ids": outputs["tokens"][:, 0], "log_prob": outputs["log_probs"][:, 0]}

    predict_chunked = in_chunks(predicted, _PLACES)
    # Two tokens for a source id at most, but for codes of another origin, of which a source id may have one.
    decode_chunked = in_chunks(decoded, max(1, 2 * _PLACES // tokens_a_latent))

    def predict_latents(memory, mask):
        return predict_chunked(*checked_memory(memory, mask, max_length))

    def decode(memory, mask, codes):
        codes = checked_codes(codes, memory, model.bottleneck.num_codes)
        return decode_chunked(*checked_memory(memory, mask, max_length), codes)

    inputs = {"memory": ((None, None, model.hidden_dim), "float32"), "mask": _IDS}
    memories = [
        {"memory": np.zeros((1, length, model.hidden_dim), "float32"), "mask": np.ones((1, length), "int32")}
        for length in buckets
    ]
    latents = [np.zeros((1, -(-2 * length // tokens_a_latent)), "int32") for length in buckets]
    return {
        "predict_latents": Signature(
            predict_latents, inputs, "Predicts the codes of translations, one by one.", WORDS, memories
        ),
        "decode": Signature(
            decode,
            {**inputs, "codes": _IDS},
            "Writes translations from their codes, all tokens at once.",
            WORDS,
            [{**memory, "codes": codes} for memory, codes in zip(memories, latents, strict=True)],
        ),
    }


def _example(length):
    """A source of so many ids: the last byte's, which every vocabulary has, and EOS."""
    source = np.full((1, length), 258, "int32")
    source[0, -1] = EOS
    return source
