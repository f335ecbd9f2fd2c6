"""The exported file translates as the run does, from Python and by the command that is printed."""

import subprocess
import sys

import keras
import pytest

from export import export_litert
from vq_keras import litert_model
from vq_keras.data.translation_data import Pairs
from vq_keras.data.vocabulary import FILE, Vocabulary
from vq_keras.models.transformer import Transformer
from vq_keras.search import AutoregressiveSearch
from vq_keras.training import runs
from vq_keras.translator import Translator

pytest.importorskip("sentencepiece", reason="vocabularies are trained and run by SentencePiece")
pytest.importorskip("ai_edge_litert", reason="the engine that the models are written for")

needs_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow writes LiteRT models")

PAIRS = Pairs(["two books", "the old house"] * 3, ["zwei Bücher", "das alte Haus"] * 3)
SIZES = {"hidden_dim": 16, "num_heads": 2, "feed_forward_dim": 24}


@pytest.fixture
def run(tmp_path):
    keras.utils.set_random_seed(0)
    vocabulary = Vocabulary.train(PAIRS, size=290)
    model = Transformer(vocabulary.size, num_encoder_layers=1, num_decoder_layers=1, **SIZES)
    # Otherwise each token, the end first of all, predicts itself: the table that embeds it also makes its logit.
    model.decoder.norm.gamma.assign(keras.random.normal((16,), seed=0))
    model.embedding.table.assign(3.0 * model.embedding.table)
    runs.claim(tmp_path / "run", {"vocabulary": vocabulary.fingerprint, "max_length": 8})
    vocabulary.save(tmp_path / "run" / FILE)
    runs.save_model(model, tmp_path / "run")
    return model, vocabulary


@needs_tensorflow
@pytest.mark.slow
def test_sentences_become_what_the_run_makes_of_them(tmp_path, capsys, run):
    out = tmp_path / "out" / "model.tflite"
    assert export_litert.main([str(tmp_path / "run"), str(out), "--quantize", "none"]) == 0
    first, _, usage = capsys.readouterr().out.partition("\n\n")
    assert first == f"LiteRT model: {out}, {out.stat().st_size / 1e6:.1f} MB; translate with it:"
    assert [path.name for path in out.parent.iterdir()] == ["model.tflite"]

    assert usage == f"python -m vq_keras.translate --model {out} < sentences.txt\n"
    sentences = ["zwei", "two books", "the old"]
    model, vocabulary = run
    expected = Translator(AutoregressiveSearch(model), vocabulary, max_length=8).translate(sentences)
    found = litert_model.load(out).translate(sentences)
    assert [(each.text, each.truncated) for each in found] == [(each.text, each.truncated) for each in expected]
    assert all(each.text for each in found)
    # The command, where neither TensorFlow nor Keras is installed.
    without = "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None; from vq_keras import translate; "
    command = [sys.executable, "-c", f"{without} sys.exit(translate.main(['--model', {str(out)!r}]))"]
    result = subprocess.run(command, input="\n".join(sentences), capture_output=True, text=True, check=True)
    # A line stays a line.
    lines = [each.text.replace("\r", " ").replace("\n", " ") for each in found]
    assert result.stdout.split("\n") == [*lines, ""]


def test_errors_are_one_sentence(tmp_path, capsys, run):
    out = tmp_path / "out.tflite"
    assert export_litert.main([str(tmp_path), str(out)]) == 2
    assert f"error: {tmp_path} is neither a run directory (it has no config.json) nor" in capsys.readouterr().err
    assert export_litert.main([str(tmp_path / "run"), str(out), "--candidates", "3"]) == 2
    assert capsys.readouterr().err == "error: a Transformer has no candidates to choose from: give beams.\n"
    if keras.backend.backend() != "tensorflow":
        assert export_litert.main([str(tmp_path / "run"), str(out)]) == 2
        assert "error: LiteRT models are written by TensorFlow, not by jax: set KERAS_" in capsys.readouterr().err
    assert export_litert.main([str(tmp_path / "run"), str(tmp_path / "out")]) == 2
    assert "out does not end in .tflite, by which such a model is known: name it so." in capsys.readouterr().err
    assert not out.exists()
