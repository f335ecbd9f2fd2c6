"""The recipes of translation: one after the other on a few sentences, resuming after SIGKILL, and their errors."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from finished_run import finished_run

from recipes import ablate_translation, distill, evaluate_translation, train_teacher, train_translation
from vq_keras.data import parallel_text
from vq_keras.data.vocabulary import FILE, Vocabulary
from vq_keras.errors import InputError
from vq_keras.models.sizes import sizes_of
from vq_keras.models.transformer import Transformer
from vq_keras.training import ngrams, runs, translation

tensorflow_only = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="half a minute of compilation")
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
ZAHLEN = ["eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf"]
SIZE = ["--vocabulary-size", "300"]
FAST = ["--tokens-per-batch", "128", "--average", "1", "--interval", "2"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Options that name files of 40, 5 and 5 pairs."""
    directory, options, rng = tmp_path_factory.mktemp("text"), [], np.random.default_rng(0)
    for part, number in (("train", 40), ("validation", 5), ("test", 5)):
        chosen = [rng.integers(12, size=rng.integers(1, 5)) for _ in range(number)]
        for words, side in ((NUMBERS, "en"), (ZAHLEN, "de")):
            lines = [" ".join(words[i] for i in row) for row in chosen]
            (directory / f"{part}.{side}").write_text("".join(f"{line}\n" for line in lines))
        options += [f"--{part}", str(directory / f"{part}.en"), str(directory / f"{part}.de")]
    return ["--dataset", "files", *options]


@pytest.mark.slow
@tensorflow_only
def test_teacher_distillation_latent_transformer_and_evaluation(tmp_path, files, capsys, monkeypatch):
    teacher, distilled, latent = tmp_path / "teacher", tmp_path / "distilled", tmp_path / "latent"
    # In so many steps it learns to write words at all.
    options = ["--steps", "80", "--warmup-steps", "30", "--interval", "40", "--run-dir", str(teacher)]
    assert train_teacher.main([*files, *SIZE, *FAST[:-2], *options]) == 0
    written = {"config.json", "model.keras", "metrics.json", "history.csv", "curves.png", "vocabulary.model"}
    written |= {"checkpoints", "tensorboard"}
    assert {path.name for path in teacher.iterdir()} == written | {"test.greedy.txt", "test.beam4.txt"}
    assert len((teacher / "test.beam4.txt").read_text().split("\n")) == 6
    assert set(json.loads((teacher / "metrics.json").read_text())) == {"greedy", "beam4"}

    sources = files[files.index("--train") + 1]
    assert distill.main([str(teacher), str(distilled), "--source", sources, "--shard", "16"]) == 0
    kept = parallel_text.read(distilled / "source.txt", distilled / "target.txt").sources
    assert set(kept) <= set(parallel_text.read_side(sources))
    assert (distilled / "vocabulary.model").read_bytes() == (teacher / "vocabulary.model").read_bytes()

    options = ["--distilled", str(distilled), "--teacher", str(teacher), "--num-codes", "8", "--steps", "3"]
    options += ["--decoder", "ctc", "--candidates", "3"]
    added = {}

    def spy(model, make_search, vocabulary, text, validation, order, max_length):
        added.update(text=text, order=order, there=(latent / "model.keras").exists())
        ngrams.add_ngrams(model, make_search, vocabulary, text, validation, order, max_length)

    monkeypatch.setattr(translation, "add_ngrams", spy)
    assert train_translation.main([*files, *FAST, *options, "--run-dir", str(latent)]) == 0
    # People's words, not the teacher's, and the trained model is safe before.
    targets = files[files.index("--train") + 2]
    assert added == {"text": parallel_text.read_side(targets), "order": 4, "there": True}
    rows = {"greedy", "greedy-double-length", "3-candidates", "3-candidates-judged"}
    assert {path.name for path in latent.iterdir()} == written | {f"test.{name}.txt" for name in rows}
    assert runs.load_config(latent)["vocabulary"] == runs.load_config(teacher)["vocabulary"]

    test = files[files.index("--test") + 1 : files.index("--test") + 3]
    figures = tmp_path / "figures.json"
    command = ["--runs", str(teacher), str(latent), "--source", test[0], "--reference", test[1]]
    assert evaluate_translation.main([*command, "--candidates", "3", "--timed", "2", "--json", str(figures)]) == 0
    found = json.loads(figures.read_text())
    assert list(found) == [
        "teacher, beam 4",
        "teacher, greedy",
        "latent",
        "latent, best of 3",
        "latent, best of 3 for teacher",
    ]
    # The exported graphs write what the runs' own test did.
    for row, run, name in (("teacher, beam 4", teacher, "beam4"), ("latent", latent, "greedy")):
        assert found[row]["chrf"] == pytest.approx(json.loads((run / "metrics.json").read_text())[name]["chrf"])
    assert all(0 < row["median_ms"] <= row["p95_ms"] and row["sentences_per_s"] > 0 for row in found.values())
    assert figures.with_suffix(".png").stat().st_size > 5000
    assert "BLEU nrefs:1|case:mixed" in capsys.readouterr().out


@pytest.mark.slow
@tensorflow_only
def test_an_ablation_trains_each_variant_with_all_else_equal(tmp_path, files, capsys):
    variants = ["num_codes=4", "num_codes=8,attend_to_source=True"]
    assert ablate_translation.main([*variants, *files, *SIZE, *FAST, "--steps", "4", "--run-dir", str(tmp_path)]) == 0
    table = json.loads((tmp_path / "table.json").read_text())
    assert list(table) == variants
    configs = {variant: runs.load_config(tmp_path / variant) for variant in variants}
    assert [configs[variant]["num_codes"] for variant in variants] == [4, 8]
    assert [configs[variant]["attend_to_source"] for variant in variants] == [False, True]
    other = {name for name in configs[variants[0]] if configs[variants[0]][name] != configs[variants[1]][name]}
    assert other == {"num_codes", "attend_to_source"}
    for variant in variants:
        metrics = json.loads((tmp_path / variant / "metrics.json").read_text())
        assert table[variant]["bleu"] == {name: metrics[name]["bleu"] for name in metrics}
        assert table[variant]["val_nll"] == runs.load_history(tmp_path / variant)[-1]["val_nll"]
    assert (tmp_path / "curves.png").stat().st_size > 5000
    assert "BLEU of each search" in capsys.readouterr().out


@pytest.mark.slow
@tensorflow_only
def test_a_killed_run_ends_with_the_same_weights(tmp_path, files):
    options = [*files, *SIZE, *FAST, "--steps", "10", "--num-codes", "8", "--average", "2"]

    def start(run_dir):
        command = [sys.executable, train_translation.__file__, *options, "--run-dir", str(run_dir)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)

    killed = start(tmp_path / "killed")
    for line in killed.stderr:
        if line.startswith("killed  4/10"):
            killed.send_signal(signal.SIGKILL)
            break
    killed.wait()
    processes = [start(tmp_path / name) for name in ("killed", "whole")]
    for process in processes:
        error = process.communicate()[1]
        assert process.returncode == 0, error
    one, other = (runs.load_model(tmp_path / name) for name in ("whole", "killed"))
    for weight, same in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(weight), np.asarray(same), err_msg=weight.path)


def told(capsys):
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and len(error.splitlines()) == 1
    return error


@pytest.mark.parametrize(
    ("recipe", "options", "sentence"),
    [
        (train_teacher, ["--architecture", "huge"], "no Transformer 'huge'; the known ones are base, shallow_decoder"),
        (train_teacher, ["--steps", "0"], "--steps is 0; give 1 or more."),
        (train_teacher, ["--subword-dropout", "1"], "--subword-dropout is 1.0; give a share from 0 up to, not incl"),
        (train_teacher, ["--precision", "float8"], "--precision is 'float8'; give one of float32, mixed_bfloat16"),
        (train_teacher, ["--average", "3"], "--average is 3, but the run has 2 checkpoints: give fewer"),
        (train_teacher, ["--vocabulary", "nowhere.model"], "The vocabulary nowhere.model cannot be read"),
        (train_teacher, ["--vocabulary-size", "20"], "SentencePiece cannot train a vocabulary of 20"),
        (train_teacher, ["--max-length", "1"], "None of the 40 pairs has at most 1 ids a side: raise max_length."),
        (train_teacher, ["--seed", "-1"], "--seed is -1; give 0 to 4294967295"),
        (train_teacher, ["--dropout", "1.5"], "--dropout is 1.5; give a share from 0 up to, not including, 1."),
        (train_teacher, ["--tokens-per-batch", "16"], "A batch of 16 tokens cannot hold"),
        (train_teacher, ["--start", "multi30k-en-de-teacher"], "multi30k-en-de-teacher has another vocabulary"),
        (train_teacher, ["--schedule", "cosine"], "--schedule is 'cosine'; give one of exponential, rsqrt."),
        (ablate_translation, [], "The variants are ''; give one or more"),
        (ablate_translation, ["seed=1", "seed=1"], "give one or more, each once"),
        (ablate_translation, ["sneed=1"], "the variant 'sneed=1' is no NAME=VALUE of options"),
        (ablate_translation, ["seed=0", "bottleneck=lattice"], "there is no bottleneck 'lattice'"),
        (
            train_translation,
            ["--architecture", "huge"],
            "no latent Transformer 'huge'; the known ones are base, fast, small",
        ),
        (train_translation, ["--bottleneck", "lattice"], "there is no bottleneck 'lattice'"),
        (train_translation, ["--bottleneck", "residual"], "needs a bottleneck with one code for each latent"),
        (train_translation, ["--bottleneck", "gaussian"], "needs a bottleneck with one code for each latent"),
        (train_translation, ["--annealing", "1"], "--annealing is 1.0; give a share of the run"),
        (train_translation, ["--decoder", "bidirectional", "--annealing", "0.2"], "decoder would see the target"),
        (train_translation, ["--predicted-from", "1"], "--predicted-from is 1.0; give a share of the run"),
        (train_translation, ["--candidates", "1"], "--candidates is 1; give 2 or more, or 0 for none."),
        (train_translation, ["--freeze-codes"], "--freeze-codes keeps the codes of another run's model"),
        (train_translation, ["--start", "nowhere"], "nowhere is neither a run directory"),
        (train_translation, ["--start", "multi30k-en-de-latent"], "multi30k-en-de-latent has another vocabulary"),
        (train_translation, ["--predicted", "2"], "--predicted is 2.0; give a share of the sentences"),
        (train_translation, ["--decoder", "ctc", "--bigrams", "2"], "--bigrams is 2.0; give a share of the loss"),
        (train_translation, ["--bigrams", "1"], "--bigrams is for --decoder ctc: the tokens of causal_shifted have"),
        (train_translation, ["--draft", "0.5"], "a causal_shifted decoder does not see a whole draft, a token at each"),
        (train_translation, ["--distilled", "nowhere"], "There is no file nowhere/source.txt"),
        (train_translation, ["--teacher", "nowhere"], "nowhere is neither a run directory"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2_and_leaves_nothing(tmp_path, files, recipe, options, sentence, capsys):
    run_dir = tmp_path / "run"
    command = [*files, *SIZE, *FAST, "--steps", "3", "--num-codes", "8", "--run-dir", str(run_dir), *options]
    if recipe is train_teacher:
        del command[command.index("--num-codes") : command.index("--num-codes") + 2]
    assert recipe.main(command) == 2
    assert sentence in told(capsys)
    assert not run_dir.exists()


def test_text_that_does_not_fit_is_told_with_its_numbers(tmp_path, files, capsys):
    short, damaged, empty = tmp_path / "short", tmp_path / "damaged", tmp_path / "empty"
    short.write_text("eins\n")
    damaged.write_bytes(b"eins\n\xff\xfe\n")
    empty.write_text("")
    source = files[files.index("--test") + 1]
    run = ["--runs", str(tmp_path), "--source"]
    for options, sentence in (
        ([source, "--reference", str(short)], "has 5 lines and"),
        ([source, "--reference", str(damaged)], f"Line 2 of {damaged} is not UTF-8"),
        ([source, "--reference", str(empty)], f"{empty} is empty: it must hold a sentence a line"),
        ([source], "--source and --reference go together"),
        ([source, "--reference", source], f"{tmp_path} is neither a run directory (it has no config.json) nor"),
    ):
        assert evaluate_translation.main([*run, *options]) == 2
        assert sentence in told(capsys)
    assert distill.main([str(tmp_path), str(tmp_path / "out"), "--source", str(empty)]) == 2
    assert f"{empty} is empty" in told(capsys)


@pytest.mark.parametrize(
    ("recipe", "options", "sentence"),
    [
        (evaluate_translation, ["--timed", "0"], "--timed is 0; give 1 or more."),
        (evaluate_translation, ["--candidates", "1"], "--candidates is 1; give 2 or more."),
        (evaluate_translation, ["--json", "figures.png"], "--json is figures.png, where the picture would go"),
        (evaluate_translation, ["--json", "/"], "--json is /, which cannot be written; give another file."),
        (evaluate_translation, ["--runs"], "--runs names nothing: give folders of runs, or presets."),
        (evaluate_translation, [], "multi30k-en-de-teacher was trained on files, not on numbers: give --source and"),
        (distill, [], "multi30k-en-de-teacher was trained on files: give --source, the sentences to translate."),
        (
            distill,
            ["--length-penalty", "-1", "--source", "lines"],
            "length_penalty is -1.0; give 0 or a positive number",
        ),
    ],
)
def test_what_would_waste_an_evaluation_or_a_distillation_is_told_before(
    tmp_path, recipe, options, sentence, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("lines").write_text("a man\n")
    run = "multi30k-en-de-teacher"
    command = [run, "out"] if recipe is distill else [] if "--runs" in options else ["--runs", run]
    assert recipe.main([*command, *options]) == 2
    assert sentence in told(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["lines"]


def test_a_run_goes_on_with_its_own_vocabulary_alone(tmp_path, files, capsys):
    pairs = parallel_text.read(*files[files.index("--train") + 1 : files.index("--train") + 3])
    (tmp_path / "run").mkdir()
    Vocabulary.train(pairs, 300).save(tmp_path / "run" / FILE)
    Vocabulary.train(pairs, 290).save(tmp_path / "other.model")
    command = [*files, *FAST, "--steps", "3", "--run-dir", str(tmp_path / "run")]
    assert train_teacher.main([*command, "--vocabulary", str(tmp_path / "other.model")]) == 2
    assert f"{tmp_path / 'run'} has another vocabulary than {tmp_path / 'other.model'}" in told(capsys)
    assert train_teacher.main([*command, *SIZE, "--vocabulary", str(tmp_path / "run" / FILE)]) == 2
    assert "--vocabulary-size is of a vocabulary to train, but " in told(capsys)


def test_a_deep_transformer_starts_from_a_shallow_one(tmp_path, files, monkeypatch):
    pairs = parallel_text.read(*files[files.index("--train") + 1 : files.index("--train") + 3])
    vocabulary, sizes = Vocabulary.train(pairs, 300), sizes_of("Transformer", "small_shallow_decoder")
    shallow = Transformer(vocabulary.size, **sizes | {"num_encoder_layers": 1})
    start, made = finished_run(tmp_path / "shallow", shallow, vocabulary), []

    def no_training(config, corpus, make_model, make_search):
        made.append(make_model())
        raise InputError("Enough is seen.")

    monkeypatch.setattr(translation, "train", no_training)
    options = ["--architecture", "small_shallow_decoder", "--start", str(start), "--vocabulary", str(start / FILE)]
    assert train_teacher.main([*files, *FAST, *options, "--steps", "3", "--run-dir", str(tmp_path / "deep")]) == 2
    (deep,) = made
    assert len(deep.encoder.blocks) == 12
    for block in deep.encoder.blocks:
        for own, its in zip(block.weights, shallow.encoder.blocks[0].weights, strict=True):
            np.testing.assert_array_equal(np.asarray(own), np.asarray(its))


def test_a_run_with_another_vocabulary_than_its_model_s_is_refused(tmp_path, files, capsys):
    pairs = parallel_text.read(*files[files.index("--train") + 1 : files.index("--train") + 3])
    vocabulary = Vocabulary.train(pairs, 300)
    runs.claim(tmp_path, {"vocabulary": "0123456789abcdef"})
    vocabulary.save(tmp_path / FILE)
    assert evaluate_translation.main(["--runs", str(tmp_path)]) == 2
    assert "The model was trained with another vocabulary (0123456789abcdef)" in told(capsys)
