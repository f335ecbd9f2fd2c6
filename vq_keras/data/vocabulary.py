"""The subword vocabulary that sources and targets share."""

import hashlib
import io
import itertools
import os
import pathlib
import warnings
from collections.abc import Iterable, Sequence

import numpy as np

from vq_keras.data.translation_data import Pairs
from vq_keras.errors import InputError
from vq_keras.training.files import replace_file

# A sentence ends in EOS, which is also what its decoder reads first.
PAD, EOS, UNKNOWN = 0, 1, 2
FILE = "vocabulary.model"

# Sentences that are encoded at once: SentencePiece's answer is Python integers, ten times the size of the arrays.
_CHUNK = 10_000


class Vocabulary:
    """Byte pair encoding (Sennrich et al. 2016), trained and run by SentencePiece (Kudo and Richardson 2018).

    Byte pairs, as in roy2018 and Vaswani et al. 2017, rather than SentencePiece's unigram model: training counts
    integers, so the same text gives the same vocabulary on any machine, in a tenth of the time (unigram's sums depend
    on the number of threads). `tensorflow_text.SentencepieceTokenizer(model=vocabulary.proto, add_eos=True)` does the
    same inside of a SavedModel, but that its `detokenize` drops spaces at the beginning; its FastSentencepieceTokenizer
    is for unigram models alone and silently wrong here.

    Nothing of a text is lost: characters outside of the vocabulary become bytes, and nothing is normalised, spaces
    included. (But U+2581, SentencePiece's mark for a space, comes back as one.)

    Ids: 0 is padding and nothing else, 1 ends a sentence, 2 (unknown) never occurs, 3 to 258 are bytes. There is no
    beginning of a sentence: a decoder starts from EOS.

    Args:
        proto: a trained SentencePiece model; `train` and `load` make vocabularies of it.

    Raises:
        InputError: SentencePiece is not installed, or `proto` is damaged or has other ids.

    Example:
        >>> pairs = Pairs(["two books", "two houses"], ["zwei Bücher", "zwei Häuser"])
        >>> vocabulary = Vocabulary.train(pairs, size=290)
        >>> vocabulary.decode(vocabulary.encode(["zwei books"]))
        ['zwei books']
    """

    def __init__(self, proto: bytes):
        sentencepiece = _sentencepiece()
        try:
            processor = sentencepiece.SentencePieceProcessor(model_proto=proto) if proto else None
        except RuntimeError:
            processor = None
        # A model that was cut can still be parsed: what tells the ids stands at its end.
        names = ("pad_id", "eos_id", "unk_id", "bos_id")
        if processor is None or [getattr(processor, name)() for name in names] != [PAD, EOS, UNKNOWN, -1]:
            raise InputError(
                "The vocabulary is damaged, or was not made by `vq_keras.data.vocabulary`: train it again."
            )
        self.proto = proto
        self._processor = processor

    @classmethod
    def train(cls, pairs: Pairs, size: int) -> "Vocabulary":
        """Learns a vocabulary from sources and targets together.

        Args:
            pairs: the text; lines of more than 4,192 bytes are passed over.
            size: pieces wanted, the 259 ids that are always there and a piece for every frequent character among
                them. A text without so many pairs worth a piece gives fewer, with a warning.

        Returns:
            The vocabulary; the same for the same text and size.

        Raises:
            InputError: `size` is too small for the characters of the text, or there is no text.
        """
        sentencepiece = _sentencepiece()
        proto = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=itertools.chain(pairs.sources, pairs.targets),
                model_writer=proto,
                model_type="bpe",
                vocab_size=size,
                hard_vocab_limit=False,
                pad_id=PAD,
                eos_id=EOS,
                unk_id=UNKNOWN,
                bos_id=-1,
                byte_fallback=True,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                minloglevel=2,
            )
        except RuntimeError as error:
            # "INTERNAL: src/trainer_interface.cc(638) [the condition] the reason."
            reason = str(error).splitlines()[0].rpartition("]")[-1].strip() or "it has no line of 1 to 4,192 bytes."
            raise InputError(f"SentencePiece cannot train a vocabulary of {size:,} on this text: {reason}") from error
        vocabulary = cls(proto.getvalue())
        if vocabulary.size < size:
            warnings.warn(
                f"The text is too small for a vocabulary of {size:,}: it has {vocabulary.size:,} pieces.", stacklevel=2
            )
        return vocabulary

    @classmethod
    def load(cls, path: str | os.PathLike, fingerprint: str | None = None) -> "Vocabulary":
        """Reads what `save` wrote.

        Args:
            path: the file.
            fingerprint: that of the vocabulary a model was trained with; None takes any.

        Raises:
            InputError: the file is missing or damaged, or holds another vocabulary than that of the fingerprint.
        """
        path = pathlib.Path(path)
        try:
            vocabulary = cls(path.read_bytes())
        except OSError as error:
            raise InputError(f"The vocabulary {path} cannot be read: {error.strerror}.") from error
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        if fingerprint not in (None, vocabulary.fingerprint):
            raise InputError(
                f"The model was trained with another vocabulary ({fingerprint}) than {path} "
                f"({vocabulary.fingerprint}): its ids would mean other words. Give the file from the model's own run."
            )
        return vocabulary

    def save(self, path: str | os.PathLike) -> None:
        """Writes the vocabulary, aside and then renamed; a run keeps it as `vocabulary.FILE` in its folder."""
        replace_file(path, self.proto)

    @property
    def size(self) -> int:
        """Number of ids."""
        return self._processor.get_piece_size()

    @property
    def pieces(self) -> list[str]:
        """The text of each id, as SentencePiece writes it: "▁" for a space, "<0x41>" for a byte."""
        return [self._processor.id_to_piece(i) for i in range(self.size)]

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that differ for any other vocabulary."""
        return hashlib.sha256(self.proto).hexdigest()[:16]

    def encode(self, sentences: Sequence[str], dropout: float = 0.0, seed: int = 0) -> list[np.ndarray]:
        """The ids of sentences.

        Args:
            sentences: any texts.
            dropout: probability with which each merge of two pieces is passed over, each time it could be made, so
                that words fall into other and smaller pieces than usual: BPE-dropout of Provilkov et al. 2020.
            seed: of those.

        Returns:
            For each an int32 array (length,) that ends in EOS.

        Raises:
            InputError: a text is not Unicode: it holds half of a surrogate pair.
        """
        # One thread: each has a generator of its own.
        sampling = {"enable_sampling": True, "alpha": dropout, "nbest_size": -1, "num_threads": 1} if dropout else {}
        if dropout:
            _sentencepiece().set_random_generator_seed(seed)
        rows = []
        for start in range(0, len(sentences), _CHUNK):
            try:
                chunk = [sentence.encode() for sentence in sentences[start : start + _CHUNK]]
            except UnicodeEncodeError as error:
                raise InputError(f"A sentence holds half of a surrogate pair: {error.object!r}.") from error
            rows += [np.array(ids, np.int32) for ids in self._processor.encode(chunk, add_eos=True, **sampling)]
        return rows

    def decode(self, ids: Iterable[Sequence[int]]) -> list[str]:
        """The sentences of ids, such as a model generated.

        Args:
            ids: integers (batch, length), or a sequence of rows of their own lengths. What follows a row's first EOS
                does not count, nor does padding.

        Returns:
            For each row its text. Bytes that are no UTF-8, which a model may generate, become U+FFFD.

        Raises:
            InputError: an id is not in the vocabulary.
        """
        rows = [_before_end(np.asarray(row)) for row in ids]
        try:
            return self._processor.decode(rows) if rows else []  # SentencePiece takes [] for one row.
        except IndexError as error:
            raise InputError(f"There are ids outside of the vocabulary, which has 0 to {self.size - 1}.") from error


def _before_end(row: np.ndarray) -> list[int]:
    ended = np.logical_or.accumulate(row == EOS)
    return row[~ended & (row != PAD)].tolist()


def _sentencepiece():
    try:
        import sentencepiece
    except ImportError as error:
        raise InputError(f"Translation needs SentencePiece ({error}): pip install 'vq_keras[translation]'.") from error
    return sentencepiece
