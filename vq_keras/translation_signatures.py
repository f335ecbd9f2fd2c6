"""What a served translator offers: ids to ids, its parts, or text to text with the tokenizer in the graph."""

import keras
from keras import ops

from vq_keras.data.vocabulary import EOS, PAD, Vocabulary
from vq_keras.errors import InputError
from vq_keras.models.latent_transformer import LatentTransformer
from vq_keras.models.parallel_transformer import ParallelTransformer
from vq_keras.models.transformer import Transformer
from vq_keras.saved_model import Signature
from vq_keras.search import AutoregressiveSearch, LatentSearch, ParallelSearch

_IDS = ((None, None), "int32")


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


def id_signatures(found: dict[str, keras.Model]) -> dict[str, Signature]:
    """Signatures from ids to ids, for `vq_keras.saved_model.write`.

    Sources and targets are int32 (batch, n), each row ending in EOS (1) and padded with 0. What a row gives does not
    depend on the others of its batch, nor on its padding.

    - each search: source -> tokens (batch, m) int32, padded with 0, and scores (batch,), as the search defines them.
    - `score`, of a `Transformer`: source, target -> log_prob (batch,), of the target given the source, in nats.
    - `predict_latents`, of a `LatentTransformer`: source -> codes (batch, latents) int32, -1 where a sentence has no
      more; their log_prob (batch,); and what the decoder has to know of the source, memory (batch, n, dim) float32 and
      mask (batch, n) int32.
    - `decode`, of a `LatentTransformer`: codes, memory, mask -> tokens and their log_prob given the codes. After
      `predict_latents` that is `translate`, whose scores are the sum of both log_prob.

    Args:
        found: what `searches` gave.
    """
    signatures = {name: Signature(_never_empty(search), {"source": _IDS}) for name, search in found.items()}
    search = found["translate"]
    model = search.model

    def score(source, target):
        return {"log_prob": model.score(model.encode(source), target)}

    def predict_latents(source):
        context, codes, log_probs = search.predict_latents(source)
        return {
            "codes": codes[:, 0],
            "log_prob": log_probs[:, 0],
            "memory": ops.cast(context["memory"], "float32"),
            "mask": ops.cast(context["mask"], "int32"),
        }

    def decode(codes, memory, mask):
        decoded = model.decode({"memory": memory, "mask": ops.not_equal(mask, 0)}, codes[:, None])
        return {"tokens": decoded["tokens"][:, 0], "log_prob": decoded["log_probs"][:, 0]}

    if isinstance(model, Transformer):
        signatures["score"] = Signature(_never_empty(score), {"source": _IDS, "target": _IDS})
    if isinstance(model, LatentTransformer):
        signatures["predict_latents"] = Signature(_never_empty(predict_latents), {"source": _IDS})
        memory = ((None, None, model.hidden_dim), "float32")
        signatures["decode"] = Signature(_never_empty(decode), {"codes": _IDS, "memory": memory, "mask": _IDS})
    return signatures


def text_signatures(found: dict[str, keras.Model], vocabulary: Vocabulary, max_length: int) -> tuple:
    """Signatures from text to text, and the tokenizer that has to be saved with them.

    Each search: source (batch,) strings in UTF-8 -> translation (batch,) strings, score (batch,), and truncated
    (batch,) bool, whether a sentence was longer than `max_length` and translated as far as that. They are what
    `vq_keras.translator.Translator` gives for the same sentences, an empty translation of an empty one among them, but
    for spaces at the beginning of a translation, which TensorFlow Text leaves out.

    Args:
        found: what `searches` gave.
        vocabulary: that of the model.
        max_length: the ids of the longest source, EOS among them.

    Returns:
        the signatures, and the resources, for `vq_keras.saved_model.write`.

    Raises:
        InputError: TensorFlow Text is not installed, or `max_length` is below 2.
    """
    try:
        import tensorflow as tf
        import tensorflow_text
    except ImportError as error:
        raise InputError(f"Text needs TensorFlow Text ({error}): pip install 'vq_keras[translation]'.") from error
    if max_length < 2:
        raise InputError(f"max_length is {max_length}; give at least 2: a token and EOS.")
    tokenizer = tensorflow_text.SentencepieceTokenizer(model=vocabulary.proto)

    def signature(search):
        search = _never_empty(search)

        def translate(source):
            with tf.device("CPU"):  # The tokenizer's operations have no other kernels.
                ids = tokenizer.tokenize(source)
                truncated = ids.row_lengths() > max_length - 1
                ids = ids[:, : max_length - 1]
                lengths = tf.cast(ids.row_lengths(), "int32")
                ids = tf.pad(ids.to_tensor(PAD), [[0, 0], [0, 1]])
            ids = tf.where(tf.range(tf.shape(ids)[1]) == lengths[:, None], EOS, ids)
            outputs = search(ids)
            tokens, scores, empty = outputs["tokens"], outputs["scores"], lengths == 0
            ended = tf.cumsum(tf.cast(tokens == EOS, "int32"), axis=1) > 0
            kept = ~ended & (tokens != PAD) & ~empty[:, None]
            with tf.device("CPU"):
                translation = tokenizer.detokenize(tf.ragged.boolean_mask(tokens, kept))
            return {"translation": translation, "score": tf.where(empty, 0.0, scores), "truncated": truncated}

        return Signature(translate, {"source": ((None,), "string")})

    return {name: signature(search) for name, search in found.items()}, [tokenizer]


def _never_empty(function):
    """The function with a row of padding in place of an empty batch, which not all operations can take."""

    def filled(*inputs):
        import tensorflow as tf

        rows = tf.shape(inputs[0])[0]
        missing = tf.cast(rows == 0, "int32")
        inputs = [tf.pad(x, [[0, missing]] + [[0, 0]] * (len(x.shape) - 1)) for x in inputs]
        return {name: output[:rows] for name, output in function(*inputs).items()}

    return filled
