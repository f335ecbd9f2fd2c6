import io
import os
import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest

from vq_keras.data.translation_data import Pairs
from vq_keras.data.vocabulary import EOS, FILE, PAD, Vocabulary
from vq_keras.errors import InputError

sentencepiece = pytest.importorskip("sentencepiece", reason="vocabularies are trained and run by SentencePiece")

PAIRS = Pairs(
    ["the house is old", "the old man reads two books", "books are in the house", "she reads the news"] * 3,
    ["das Haus ist alt", "der alte Mann liest zwei Bücher", "Bücher sind im Haus", "sie liest die Zeitung"] * 3,
)


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.train(PAIRS, size=330)


def test_its_ids(vocabulary):
    processor = sentencepiece.SentencePieceProcessor(model_proto=vocabulary.proto)
    assert vocabulary.size == processor.get_piece_size() == 330
    assert [processor.id_to_piece(i) for i in range(4)] == ["<pad>", "</s>", "<unk>", "<0x00>"]
    assert vocabulary.pieces == [processor.id_to_piece(i) for i in range(330)]
    (ids,) = vocabulary.encode(["Haus the"])
    assert ids.dtype == np.int32
    # Pieces of both languages: each word took fewer ids than it has letters.
    assert [vocabulary.pieces[i] for i in ids[:-1]] == ["▁Haus", "▁the"]
    assert ids[-1] == EOS


# U+2581 is SentencePiece's mark for a space; surrogates are no characters.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"))


@hypothesis.settings(deadline=None, max_examples=300)
@hypothesis.given(
    sentences=st.lists(st.one_of(texts, st.text("thebokHausü  \n<0x4>/"), st.sampled_from(PAIRS.targets)))
)
@hypothesis.example(
    ["", " ", "  a  b ", "\0", "</s>", "<pad><unk>", "<0x41>", "u\u0308 ü ﬁ ½", "日本語 😀", "\ufeff\u2028\x85"]
)
def test_nothing_of_a_text_is_lost(vocabulary, sentences):
    rows = vocabulary.encode(sentences)
    assert vocabulary.decode(rows) == sentences
    for row in rows:
        assert row[-1] == EOS and (row[:-1] > 2).all() and (row < vocabulary.size).all()


@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(st.lists(st.text("thebokHausü ")), st.floats(0.01, 1.0), st.integers(0, 2**32 - 1))
def test_dropout_divides_a_text_otherwise_and_loses_nothing(vocabulary, sentences, dropout, seed):
    rows = vocabulary.encode(sentences, dropout, seed)
    assert vocabulary.decode(rows) == sentences
    for row, same in zip(rows, vocabulary.encode(sentences, dropout, seed), strict=True):
        np.testing.assert_array_equal(row, same)


def test_dropout_passes_over_as_many_merges_as_it_says(vocabulary):
    # A space and a letter are one merge, which is made or not.
    piece = next(piece for piece in vocabulary.pieces if len(piece) == 2 and piece[0] == "▁")
    whole, text = vocabulary.pieces.index(piece), piece[1]
    rows = vocabulary.encode([text] * 20_000, 0.3, seed=0)
    # Four standard deviations of the mean of as many draws.
    assert np.mean([row[0] == whole for row in rows]) == pytest.approx(0.7, abs=4 * (0.21 / 20_000) ** 0.5)
    assert {len(row) for row in rows} == {2, 3}
    assert all(row[0] != whole for row in vocabulary.encode([text] * 100, 1.0, seed=0))


def test_decoding_stops_at_the_first_end_and_passes_padding_over(vocabulary):
    old, house = (row[:-1].tolist() for row in vocabulary.encode(["old", "the house"]))
    ids = np.zeros((5, 20), np.int32)
    for row, content in enumerate([old, [*old, EOS, *house], [EOS, *house], [PAD, *house, PAD, *old, EOS], []]):
        ids[row, : len(content)] = content
    assert vocabulary.decode(ids) == ["old", "old", "", "the house old", ""]
    assert vocabulary.decode(keras.ops.convert_to_tensor(ids[:2])) == ["old", "old"]
    assert vocabulary.decode([]) == []
    assert vocabulary.decode(np.zeros((0, 7), np.int32)) == []


def test_bytes_that_are_no_text_still_decode(vocabulary):
    # 3 + 0xff and 3 + 0x41: never a byte of UTF-8, and "A".
    assert vocabulary.decode([[3 + 0xFF, 3 + 0x41]]) == ["\ufffdA"]


@pytest.mark.parametrize("wrong", [-1, 330])
def test_ids_outside_are_told(vocabulary, wrong):
    with pytest.raises(InputError, match="ids outside of the vocabulary, which has 0 to 329"):
        vocabulary.decode([[5, 6], [7, wrong]])


def test_half_a_surrogate_pair_is_told(vocabulary):
    with pytest.raises(InputError, match=r"half of a surrogate pair: 'not \\ud800 fine'"):
        vocabulary.encode(["fine", "not \ud800 fine"])


def test_many_sentences_are_encoded_in_parts(vocabulary, monkeypatch):
    monkeypatch.setattr("vq_keras.data.vocabulary._CHUNK", 5)
    got, (expected,) = vocabulary.encode(PAIRS.sources), vocabulary.encode(PAIRS.sources[7:8])
    assert len(got) == 12
    np.testing.assert_array_equal(got[7], expected)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.text runs on TensorFlow")
def test_tensorflow_text_makes_the_same_ids(vocabulary):
    tensorflow_text = pytest.importorskip("tensorflow_text", reason="exports tokenise with TensorFlow Text")
    tokenizer = tensorflow_text.SentencepieceTokenizer(model=vocabulary.proto, add_eos=True)
    sentences = ["", "the house", "  zwei  Bücher ", "日本語 😀\n", "</s>", "u\u0308", *PAIRS.sources, *PAIRS.targets]
    ids = tokenizer.tokenize(sentences)
    for expected, got in zip(ids.to_list(), vocabulary.encode(sentences), strict=True):
        assert got.tolist() == expected
    texts = [text.decode() for text in tokenizer.detokenize(ids).numpy()]
    assert texts == [sentence.lstrip(" ") for sentence in sentences]


def test_the_same_text_gives_the_same_vocabulary_in_any_process(vocabulary):
    assert Vocabulary.train(PAIRS, 330).proto == vocabulary.proto
    other = Vocabulary.train(PAIRS, 331)
    assert other.fingerprint != vocabulary.fingerprint
    program = f"from vq_keras.data.vocabulary import *; print(Vocabulary.train({PAIRS!r}, 330).fingerprint)"
    # Python orders sets of strings by this; Keras starts fastest on numpy.
    environment = {**os.environ, "PYTHONHASHSEED": "7", "KERAS_BACKEND": "numpy"}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == vocabulary.fingerprint


def test_what_was_saved_is_loaded(vocabulary, tmp_path):
    path = tmp_path / "run" / FILE
    vocabulary.save(path)
    loaded = Vocabulary.load(path, vocabulary.fingerprint)
    assert loaded.fingerprint == vocabulary.fingerprint
    assert [row.tolist() for row in loaded.encode(PAIRS.targets)] == [
        row.tolist() for row in vocabulary.encode(PAIRS.targets)
    ]
    assert [file.name for file in path.parent.iterdir()] == [FILE]
    with pytest.raises(
        InputError, match=rf"another vocabulary \(0123456789abcdef\) than {path} \({loaded.fingerprint}"
    ):
        Vocabulary.load(path, "0123456789abcdef")


def test_damaged_files_are_told(vocabulary, tmp_path):
    path = tmp_path / FILE
    pieces = vocabulary.proto.index(b"<0x00>")
    # Cut anywhere, between two pieces too, where what is left can still be parsed.
    cuts = [vocabulary.proto[:end] for end in (pieces - 4, pieces, pieces + 100, len(vocabulary.proto) // 2)]
    for content in [*cuts, b"", b"no model", b"\0" * 100]:
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"{FILE}: The vocabulary is damaged, or was not made by"):
            Vocabulary.load(path)
    with pytest.raises(InputError, match=r"none\.model cannot be read: No such file"):
        Vocabulary.load(tmp_path / "none.model")


def test_a_model_with_other_ids_is_refused(tmp_path):
    proto = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(PAIRS.sources), model_writer=proto, vocab_size=30, model_type="bpe", minloglevel=2
    )
    with pytest.raises(InputError, match="was not made by"):
        Vocabulary(proto.getvalue())


def test_a_small_text_gives_what_it_has():
    with pytest.warns(UserWarning, match=r"too small for a vocabulary of 8,000: it has (\d\d\d) pieces"):
        vocabulary = Vocabulary.train(PAIRS, 8000)
    assert 330 < vocabulary.size < 500
    assert vocabulary.decode(vocabulary.encode(PAIRS.targets)) == PAIRS.targets


@pytest.mark.parametrize(
    "pairs, size, message",
    [
        (
            PAIRS,
            270,
            r"cannot train a vocabulary of 270 on this text: Vocabulary size is smaller than required_chars\.",
        ),
        (PAIRS, 0, "cannot train a vocabulary of 0 on this text"),
        (Pairs([], []), 300, r"on this text: it has no line of 1 to 4,192 bytes\."),
    ],
)
def test_what_cannot_be_trained_is_told(pairs, size, message):
    with pytest.raises(InputError, match=message):
        Vocabulary.train(pairs, size)


def test_without_sentencepiece(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(InputError, match=r"needs SentencePiece .*pip install 'vq_keras\[translation\]'"):
        Vocabulary.train(PAIRS, 300)
