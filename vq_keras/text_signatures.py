"""What a served translator of text offers, with the tokenizer in its graph."""

import keras

from vq_keras.data.vocabulary import EOS, PAD, Vocabulary
from vq_keras.errors import InputError
from vq_keras.saved_model import Signature
from vq_keras.translation_signatures import ABOUT, WORDS, length_buckets, translation

_WORDS = {
    **WORDS,
    "source": "sentences in UTF-8",
    "translation": "their translations in UTF-8",
}


def text_signatures(found: dict[str, keras.Model], vocabulary: Vocabulary, max_length: int) -> tuple:
    """Signatures from text to text, and the tokenizer that has to be saved with them.

    Each search: source (batch,) strings in UTF-8 -> translation (batch,) strings in UTF-8, score (batch,), and
    truncated (batch,) bool, whether a sentence was longer than `max_length` and translated as far as that. They are
    what `vq_keras.translator.Translator` gives for the same sentences, an empty translation of an empty or blank one
    among them, but for spaces at the beginning of a translation, which TensorFlow Text leaves out.

    Any bytes are text: those that are no UTF-8 are read as U+FFFD, each. Of a longer text than the longest source can
    be, only the beginning is tokenised. Batches may have any size: a part is translated after the other.

    Args:
        found: what `vq_keras.translation_signatures.searches` gave.
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
    tokenizer = tensorflow_text.SentencepieceTokenizer(model=vocabulary.proto)
    # The text of the first `max_length` ids is no longer. (In a word that goes on behind it, without a space for
    # thousands of bytes, its end could have joined them otherwise.)
    longest = max(len(piece.encode()) for piece in vocabulary.pieces)
    max_bytes = max_length * longest

    def signature(name, search):
        translate_ids = translation(search, max_length)

        def translate(source):
            with tf.device("CPU"):  # The tokenizer's operations have no other kernels.
                blank = tf.strings.length(tf.strings.strip(source)) == 0
                ids = tokenizer.tokenize(tf.where(blank, "", tf.strings.substr(source, 0, max_bytes)))
                ids = ids[:, :max_length]  # One more than has room beside EOS, where there are so many.
                lengths = tf.cast(ids.row_lengths(), "int32")
                ids = tf.pad(ids.to_tensor(PAD), [[0, 0], [0, 1]])
            ids = tf.where(tf.range(tf.shape(ids)[1]) == lengths[:, None], EOS, ids)
            outputs = translate_ids(ids)
            tokens = outputs.pop("target_ids")
            ended = tf.cumsum(tf.cast(tokens == EOS, "int32"), axis=1) > 0
            with tf.device("CPU"):
                text = tokenizer.detokenize(tf.ragged.boolean_mask(tokens, ~ended & (tokens != PAD)))
            return {"translation": text, **outputs}

        return Signature(translate, {"source": ((None,), "string")}, ABOUT[name], _WORDS, examples)

    examples = [{"source": [_sentence(vocabulary, length)]} for length in length_buckets(max_length)]
    return {name: signature(name, search) for name, search in found.items()}, [tokenizer]


def _sentence(vocabulary, length):
    """As many words as there are ids before EOS, or as have room."""
    one, two = (len(ids) - 1 for ids in vocabulary.encode(["a", "a a"]))
    return " ".join(["a"] * (1 + max(0, length - 1 - one) // (two - one)))
