"""Translators in LiteRT write what the Keras models do; rounded ones nearly so; a bad file is told of."""

import errno
import os
import sys
import types
import zipfile

import keras
import numpy as np
import pytest

from vq_keras import litert_model
from vq_keras.bottlenecks import VectorQuantizer
from vq_keras.data.translation_data import Pairs
from vq_keras.data.vocabulary import EOS, Vocabulary
from vq_keras.errors import InputError
from vq_keras.layers import NGrams
from vq_keras.models.latent_transformer import LatentTransformer
from vq_keras.models.parallel_transformer import ParallelTransformer
from vq_keras.models.transformer import Transformer
from vq_keras.translator import Translator

pytest.importorskip("sentencepiece", reason="vocabularies are trained and run by SentencePiece")
pytest.importorskip("ai_edge_litert", reason="the engine that the models are written for")

pytestmark = [
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow writes LiteRT models"),
    pytest.mark.slow,
    pytest.mark.xdist_group("litert"),  # One process makes the file that several tests share.
]

PAIRS = Pairs(["two books", "the old house"] * 3, ["zwei Bücher", "das alte Haus"] * 3)
# Their products have 1,024 weights and more each: LiteRT leaves smaller ones in float32.
SIZES = {"num_decoder_layers": 1, "num_encoder_layers": 1, "hidden_dim": 32, "num_heads": 2, "feed_forward_dim": 64}
MAX_LENGTH = 4  # Which makes graphs for 2, 3 and 4 ids.
SENTENCES = ["two books", "", "the old house of the two old books", "zwei", "Haus", "old"]
# "long" has targets of twice the source's length, as long as they may be: no room for them in most graphs.
KINDS = ("greedy", "beams", "bidirectional", "ctc", "ngrams", "long", "candidates", "classifier", "fertility")


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.train(PAIRS, size=290)


def made(kind, size):
    """An untrained model with preferences, and what else than the default its search is to have."""
    keras.utils.set_random_seed(0)
    options = {"beams": 3} if kind == "beams" else {"candidates": 3} if kind == "candidates" else {}
    if kind in ("greedy", "beams"):
        model = Transformer(size, **SIZES)
    elif kind in ("classifier", "fertility"):
        model = ParallelTransformer(size, lengths=kind, **SIZES)
    else:
        decoder = {"candidates": "causal_shifted", "long": "ctc", "ngrams": "ctc"}.get(kind, kind)
        bottleneck = VectorQuantizer(5, initializer="normal", seed=0)
        model = LatentTransformer(size, bottleneck, 2, num_predictor_layers=1, decoder=decoder, **SIZES)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        scale = 2.0 * weight.shape[0] ** -0.5 if len(weight.shape) == 2 else 0.2
        weight.assign(rng.normal(weight.name == "gamma", scale, weight.shape))
    if kind == "long":
        kernel, bias = model.length_head.share.weights
        kernel.assign(np.zeros(kernel.shape))
        bias.assign([np.log(np.exp(2.0) - 1.0)])  # Its softplus is 2.
    # The table that embeds a token makes its logit, too: each would predict itself.
    decoder = model.decoder if isinstance(model, Transformer) else model.token_decoder
    decoder.norm.gamma.assign(rng.normal(0.0, 1.0, 32))
    table = rng.normal(0.0, 0.5, model.embedding.table.shape)
    table[EOS] *= 1.25  # Ends sometimes.
    model.embedding.table.assign(table)
    if kind == "ngrams":
        text = [[*rng.integers(3, size, rng.integers(1, 8)).tolist(), EOS] for _ in range(300)]
        model.ngrams = NGrams.fit(text, size, 3)
    return model, options


def written(folder, kind, vocabulary, quantize):
    """The Keras model's translator and the one of its file."""
    model, options = made(kind, vocabulary.size)
    search = litert_model.search_of(model, **options)
    path = folder / f"{kind}.tflite"
    litert_model.write(path, search, vocabulary, MAX_LENGTH, quantize)
    return Translator(search, vocabulary, MAX_LENGTH), litert_model.load(path), path


@pytest.fixture(scope="module")
def rounded(tmp_path_factory, vocabulary):
    return written(tmp_path_factory.mktemp("rounded"), "ctc", vocabulary, quantize=True)


@pytest.mark.parametrize("kind", KINDS)
def test_in_float32_ids_are_those_of_the_keras_model_for_all_lengths(tmp_path, vocabulary, kind):
    expected, found, _ = written(tmp_path, kind, vocabulary, quantize=False)
    source = np.random.default_rng(0).integers(3, vocabulary.size, (6, MAX_LENGTH)).astype("int32")
    for row, length in zip(source, (4, 2, 3, 4, 3, 2), strict=True):
        row[length - 1 :] = [EOS] + [0] * (MAX_LENGTH - length)
    ours, theirs = (each.search.predict_on_batch(source) for each in (expected, found))
    tokens = trimmed(ours)
    assert trimmed(theirs) == tokens
    assert len({tuple(row) for row in tokens}) > 3  # The model tells sentences apart.
    # Sums of up to 54 float32 terms, of logits that other kernels computed.
    np.testing.assert_allclose(theirs["scores"], ours["scores"], rtol=1e-4, atol=1e-4)
    alone = [found.search.predict_on_batch(row[None]) for row in source]
    assert [trimmed(each)[0] for each in alone] == tokens
    np.testing.assert_array_equal([each["scores"][0] for each in alone], theirs["scores"])


def trimmed(outputs):
    """The ids of each row, without the padding behind them."""
    return [np.trim_zeros(row, "b").tolist() for row in np.asarray(outputs["tokens"])]


def test_a_longer_sentence_is_cut_and_says_so(rounded):
    _, translator, _ = rounded
    (found,) = translator.translate(["the old house of the two old books"])
    ids = translator.vocabulary.encode(["the old house of the two old books"])[0]
    cut = translator.vocabulary.decode([ids[: MAX_LENGTH - 1]])[0]
    assert len(ids) > MAX_LENGTH and found.truncated
    assert translator.translate([cut])[0] == found._replace(truncated=False)


def test_rounded_scores_are_near_those_of_the_keras_model(rounded):
    ours, theirs = (translator.translate(SENTENCES) for translator in rounded[:2])
    # Both weights and inputs have errors of up to 1/254 of the largest of a row, which sums of 32 random terms make
    # about a hundredth of a logit; a score is a sum of up to 48 log probabilities.
    np.testing.assert_allclose([each.score for each in theirs], [each.score for each in ours], rtol=0.05, atol=0.5)
    assert sum(a.text == b.text for a, b in zip(ours, theirs, strict=True)) >= 4


def test_the_table_of_embeddings_and_logits_is_in_the_file_once_with_8_bits(rounded, vocabulary):
    model, _ = made("ctc", vocabulary.size)
    table = keras.ops.convert_to_numpy(model.embedding.table)
    content = rounded[2].read_bytes()
    codes = np.round(127 * table / np.abs(table).max(axis=1, keepdims=True)).astype("int8")
    assert content.count(codes.tobytes()) == 1
    assert table.tobytes() not in content


def test_the_model_is_as_it_was_when_it_has_been_written(rounded, vocabulary):
    model, _ = made("ctc", vocabulary.size)
    for before, after in zip(model.weights, rounded[0].search.model.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(before), keras.ops.convert_to_numpy(after))


def test_what_belongs_to_the_model_is_a_zip_archive_in_the_same_file(rounded, vocabulary):
    with zipfile.ZipFile(rounded[2]) as archive:
        assert archive.namelist() == ["vocabulary.model", "translator.json"]
        assert archive.read("vocabulary.model") == vocabulary.proto


def test_a_damaged_or_foreign_file_is_told_of(tmp_path, rounded, monkeypatch):
    path, content = tmp_path / "model.tflite", rounded[2].read_bytes()
    flipped = content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]
    for damaged in (content[:-1000], content[: len(content) // 2], b"", flipped):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"is damaged, or not of export/export_litert\.py: export the run again\."):
            litert_model.load(path)
    for name, text in (("labels.txt", "cat"), ("translator.json", "{}"), ("translator.json", "[]")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, text)
            archive.writestr("vocabulary.model", b"")
        with pytest.raises(InputError, match="is damaged, or not of"):
            litert_model.load(path)
    # Whatever bit of the archive is wrong: most kinds of errors that Python has for it come up.
    start = len(content) - zipfile.ZipFile(rounded[2]).start_dir
    rng = np.random.default_rng(0)
    for place in rng.permutation(np.arange(len(content) - start, len(content)))[:150]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            litert_model.load(path)
        except InputError as error:
            assert "is damaged, or not of" in str(error)
    with pytest.raises(InputError, match="nothing cannot be read: No such file or directory"):
        litert_model.load(tmp_path / "nothing")
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(InputError, match=r"^LiteRT is not there .*: pip install 'vq_keras\[litert\]'\.$"):
        litert_model.load(rounded[2])


def test_a_file_that_cannot_be_written_is_told_of(tmp_path, vocabulary, monkeypatch):
    search = litert_model.search_of(made("greedy", vocabulary.size)[0])
    (tmp_path / "file").touch()
    monkeypatch.setattr(litert_model, "convert", lambda *_: b"model")  # It takes long, and comes before.
    with pytest.raises(InputError, match="cannot be written"):
        litert_model.write(tmp_path / "file" / "model.tflite", search, vocabulary, MAX_LENGTH)
    (tmp_path / "folder.tflite").mkdir()
    monkeypatch.setattr(litert_model, "convert", None)  # What can be told before is told before.
    with pytest.raises(InputError, match=r"folder\.tflite cannot be written \(Is a directory\)"):
        litert_model.write(tmp_path / "folder.tflite", search, vocabulary, MAX_LENGTH)


@pytest.mark.parametrize("where", ["target", "temporary"])
def test_a_full_disk_is_told_of_and_nothing_stays(tmp_path, vocabulary, monkeypatch, where):
    search = litert_model.search_of(made("greedy", vocabulary.size)[0])

    def fails(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if where == "target":
        monkeypatch.setattr(litert_model, "convert", lambda *_: b"model")
        monkeypatch.setattr(os, "replace", fails)
        expected = r"model\.tflite cannot be written \(No space left on device\); give another file, or make room\."
    else:
        archive = types.SimpleNamespace(add_endpoint=lambda *_: None, write_out=fails)
        monkeypatch.setattr(keras.export, "ExportArchive", lambda: archive)
        expected = "no room for the model in the temporary folder .*: make some, or set TMPDIR to another"
    with pytest.raises(InputError, match=expected):
        litert_model.write(tmp_path / "model.tflite", search, vocabulary, MAX_LENGTH)
    assert list(tmp_path.iterdir()) == []
