"""The recipe that gives a run the n-grams of a text."""

import json

import keras
import numpy as np
import pytest
from finished_run import TINY, finished_run

from recipes import add_ngrams
from vq_keras.data import number_sentences
from vq_keras.data.translation_data import Pairs
from vq_keras.data.vocabulary import FILE, Vocabulary
from vq_keras.models.parallel_transformer import ParallelTransformer
from vq_keras.training import runs


@pytest.fixture(scope="module")
def pairs():
    train = number_sentences.load().train
    return Pairs(train.sources[:60], train.targets[:60])


@pytest.fixture
def make(tmp_path, pairs):
    """Makes the run of a model that has not learned anything."""

    def make(lengths):
        vocabulary = Vocabulary.train(pairs, 400)
        return finished_run(tmp_path / lengths, ParallelTransformer(vocabulary.size, lengths, **TINY), vocabulary)

    return make


@pytest.fixture
def options(tmp_path, pairs):
    files = {}
    for part, (start, stop) in {"validation": (0, 12), "test": (12, 24)}.items():
        files[part] = [tmp_path / f"{part}.{side}" for side in ("en", "de")]
        for path, side in zip(files[part], pairs, strict=True):
            path.write_text("".join(f"{sentence}\n" for sentence in side[start:stop]), encoding="utf-8")
    text = tmp_path / "text.de"
    text.write_text("".join(f"{sentence}\n" for sentence in pairs.targets), encoding="utf-8")
    options = ["--text", str(text), "--order", "3"]
    return [*options, *(word for part, paths in files.items() for word in (f"--{part}", *map(str, paths)))]


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="minutes of compilation")
def test_a_run_is_written_anew_with_ngrams(tmp_path, make, options, monkeypatch, capsys):
    def bleu(search, *rest):
        ngrams = search.model.ngrams
        return 0.0 if ngrams is None else 30.0 - abs(float(ngrams.weight) - 1.5) - abs(float(ngrams.bonus) - 9.0)

    monkeypatch.setattr("vq_keras.training.ngrams._bleu", bleu)
    run, out = make("ctc"), tmp_path / "out" / "with"
    assert add_ngrams.main([str(run), str(out), *options]) == 0
    assert "3-grams: 30.00 BLEU on the validation set, weight 1.5, 9.0 for a word." in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {
        "config.json", "metrics.json", "model.keras", "test.greedy.txt", FILE
    }  # fmt: skip
    assert 0 <= json.loads((out / "metrics.json").read_text())["greedy"]["bleu"] <= 100
    (before, *_), (after, vocabulary, config) = (runs.load_translator(each) for each in (run, out))
    assert config == runs.load_config(run)
    assert after.ngrams.order == 3 and vocabulary.size < after.ngrams.num_places
    assert (float(after.ngrams.weight), float(after.ngrams.bonus)) == (1.5, 9.0)
    for one, other in zip(before.weights, after.weights, strict=False):
        np.testing.assert_array_equal(one, other)
    assert add_ngrams.main([str(run), str(out), *options]) != 0
    assert "exists already" in capsys.readouterr().err


def test_what_cannot_be_is_told_at_once(tmp_path, make, options, capsys):
    for arguments, message in (
        ([str(make("classifier")), str(tmp_path / "out"), *options], "classifier has no use for n-grams"),
        ([str(tmp_path / "none"), str(tmp_path / "out"), *options], "none is neither a run directory"),
        ([str(tmp_path / "none"), str(tmp_path / "out"), *options, "--order", "1"], "--order is 1; give 2 or more."),
        ([str(tmp_path / "none"), str(tmp_path / "out"), *options, "--text", "no.de"], "There is no file no.de."),
    ):
        assert add_ngrams.main(arguments) != 0
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
