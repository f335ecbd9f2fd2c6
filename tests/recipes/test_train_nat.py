"""The recipe of the non-autoregressive Transformer end to end, with a judge, and its rows in the comparison."""

import json

import keras
import numpy as np
import pytest
from finished_run import TINY, finished_run

from recipes import evaluate_translation, train_nat
from vq_keras.data import number_sentences
from vq_keras.data.translation_data import Pairs
from vq_keras.data.vocabulary import FILE, Vocabulary
from vq_keras.errors import InputError
from vq_keras.models import sizes, transformer
from vq_keras.models.parallel_transformer import LENGTHS, ParallelTransformer
from vq_keras.training import runs


@pytest.fixture(scope="module")
def pairs():
    train = number_sentences.load().train
    return Pairs(train.sources[:60], train.targets[:60])


@pytest.fixture(scope="module")
def vocabulary(pairs):
    return Vocabulary.train(pairs, 400)


@pytest.fixture
def teacher(tmp_path, vocabulary):
    return finished_run(tmp_path / "teacher", transformer.Transformer(vocabulary.size, **TINY), vocabulary)


@pytest.fixture
def command(tmp_path, pairs, teacher):
    files = {}
    for part, (start, stop) in {"train": (0, 48), "validation": (48, 54), "test": (54, 60)}.items():
        files[part] = [str(tmp_path / f"{part}.{side}") for side in ("en", "de")]
        for path, side in zip(files[part], pairs, strict=True):
            with open(path, "w", encoding="utf-8") as file:
                file.writelines(f"{sentence}\n" for sentence in side[start:stop])
    of_parts = [word for part, paths in files.items() for word in (f"--{part}", *paths)]
    numbers = ["--steps", "4", "--interval", "2", "--average", "2", "--tokens-per-batch", "256", "--max-length", "64"]
    return ["--dataset", "files", *of_parts, *numbers, "--vocabulary", str(teacher / FILE)]


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="minutes of compilation")
@pytest.mark.parametrize("lengths", LENGTHS)
def test_a_run_leaves_its_files_and_has_rows_in_the_comparison(tmp_path, monkeypatch, command, teacher, lengths):
    monkeypatch.setitem(sizes.SIZES["Transformer"], "small", TINY)
    run_dir = tmp_path / "nat"
    command = [*command, "--run-dir", str(run_dir), "--lengths", lengths, "--teacher", str(teacher)]
    assert train_nat.main(command) == 0
    files = {"config.json", "model.keras", FILE, "metrics.json", "history.csv", "curves.png", "checkpoints"}
    searches = {"greedy", *({"10-candidates-judged", "100-candidates-judged"} if lengths != "ctc" else ())}
    files |= {"tensorboard", *(f"test.{name}.txt" for name in searches)}
    assert {path.name for path in run_dir.iterdir()} == files
    assert set(json.loads((run_dir / "metrics.json").read_text())) == searches
    columns = set((run_dir / "history.csv").read_text().splitlines()[0].split(","))
    predicted = {"classifier": {"nll_length", "val_nll_length"}, "fertility": {"nll_fertility", "val_nll_fertility"}}
    assert {"nll", "val_nll"} | predicted.get(lengths, set()) < columns
    model, _, config = runs.load_translator(run_dir)
    assert isinstance(model, ParallelTransformer) and model.lengths == config["lengths"] == lengths
    assert "teacher" not in config

    test = command[command.index("--test") + 1 : command.index("--test") + 3]
    systems = evaluate_translation.systems(evaluate_translation.Config((teacher, run_dir), *test, candidates=5))
    several = ["nat, best of 5", "nat, best of 5 for teacher"] if lengths != "ctc" else []
    assert list(systems) == ["teacher, beam 4", "teacher, greedy", "nat", *several]
    if several:
        assert systems["nat, best of 5 for teacher"].search.judge is systems["teacher, greedy"].search.model


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="minutes of compilation")
def test_a_run_starts_from_another(tmp_path, monkeypatch, command, vocabulary):
    monkeypatch.setitem(sizes.SIZES["Transformer"], "small", TINY)
    trained = ParallelTransformer(vocabulary.size, "ctc", **TINY)
    start = finished_run(tmp_path / "start", trained, vocabulary)
    run_dir = tmp_path / "nat"
    # At so low a rate it stays where it starts.
    options = ["--lengths", "ctc", "--start", str(start), "--bigrams", "1", "--learning-rate", "1e-9", "--ngrams", "0"]
    assert train_nat.main([*command, *options, "--run-dir", str(run_dir)]) == 0
    model, _, _ = runs.load_translator(run_dir)
    assert model.bigram_share == 1.0
    for own, its in zip(model.weights, trained.weights, strict=True):
        np.testing.assert_allclose(own, its, atol=1e-6)
    history = runs.load_history(run_dir)
    assert 0 < history[-1]["val_bigram_f1"] < 1


def test_a_start_is_a_model_of_the_same_kind(tmp_path, vocabulary, teacher):
    with pytest.raises(InputError, match="nothing for a ParallelTransformer to start from: it is the run of a Transfo"):
        runs.load_start(teacher, vocabulary, ParallelTransformer)
    start = finished_run(tmp_path / "nat", ParallelTransformer(vocabulary.size, **TINY), vocabulary)
    assert isinstance(runs.load_start(start, vocabulary, ParallelTransformer), ParallelTransformer)


def test_a_judge_is_a_teacher_with_the_same_vocabulary(tmp_path, pairs, vocabulary, teacher):
    assert isinstance(runs.load_judge(teacher, vocabulary), transformer.Transformer)
    with pytest.raises(InputError, match="teacher has another vocabulary: its ids would mean other words"):
        runs.load_judge(teacher, Vocabulary.train(pairs, 380))
    model = ParallelTransformer(vocabulary.size, **TINY)
    with pytest.raises(InputError, match="nat is no judge: give the run of an autoregressive Transformer"):
        runs.load_judge(finished_run(tmp_path / "nat", model, vocabulary), vocabulary)


def test_what_does_not_fit_is_told_before_the_data(capsys):
    assert train_nat.main(["--lengths", "oracle"]) != 0
    assert "--lengths is 'oracle'; give one of classifier, fertility, ctc." in capsys.readouterr().err
    assert train_nat.main(["--lengths", "ctc", "--bigrams", "-1"]) != 0
    assert "--bigrams is -1.0; give a share of the loss, from 0 to 1." in capsys.readouterr().err
    assert train_nat.main(["--bigrams", "1"]) != 0
    assert "--bigrams is for --lengths ctc: with classifier each token has its place." in capsys.readouterr().err
    assert train_nat.main(["--lengths", "ctc", "--ngrams", "1"]) != 0
    assert "--ngrams is 1; give their length, 2 or more, or 0 for none." in capsys.readouterr().err
    assert train_nat.main(["--ngrams", "4"]) != 0
    assert "--ngrams is for --lengths ctc: with classifier each token has its place." in capsys.readouterr().err
