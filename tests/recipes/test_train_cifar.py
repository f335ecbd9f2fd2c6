"""The recipe end to end on tiny arrays, its errors, and resuming after SIGKILL."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from recipes import evaluate_images, train_cifar
from vq_keras.training import runs

RECIPE = Path(train_cifar.__file__)
FAST = [
    "--batch-size",
    "8",
    "--num-codes",
    "16",
    "--predictor-layers",
    "1",
    "--predictor-dim",
    "8",
    "--warmup-steps",
    "2",
]

tensorflow_only = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="half a minute of compilation")


@pytest.fixture
def arrays(tmp_path):
    numbers = np.random.default_rng(0)
    path = tmp_path / "images.npz"
    np.savez(path, **{name: numbers.integers(0, 256, (20, 8, 8, 3), dtype="uint8") for name in ("train", "test")})
    return path


def command(arrays, run_dir, *more):
    return ["--dataset", "npz", "--data-dir", str(arrays), "--run-dir", str(run_dir), *FAST, *more]


FILES = {"config.json", "model.keras", "metrics.json", "history.csv", "curves.png", "reconstructions.png"}
FILES |= {"checkpoints", "tensorboard"}


@pytest.mark.slow
@tensorflow_only
def test_equal_commands_give_equal_figures(tmp_path, arrays, capsys):
    figures = []
    for name in ("one", "two"):
        assert train_cifar.main(command(arrays, tmp_path / name, "--steps", "5", "--interval", "2")) == 0
        figures.append(json.loads((tmp_path / name / "metrics.json").read_text()))
    assert figures[0] == figures[1]
    assert figures[0]["num_images"] == 20
    assert "bits/dim, strict" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "one").iterdir()} == FILES | {"samples.png"}


@pytest.mark.slow
# JAX compiles every model anew, half a minute each on two cores: the first one has to do there.
@pytest.mark.parametrize(
    ("more_files", "options"),
    [
        ({"predictor", "samples.png"}, ["--predictor", "after", "--predictor-steps", "3", "--codebooks", "separate"]),
        pytest.param(
            set(),
            ["--predictor", "none", "--bottleneck", "soft_em", "--num-samples", "2", "--likelihood", "gaussian"],
            marks=tensorflow_only,
        ),
        pytest.param(
            set(),
            ["--bottleneck", "gaussian"],
            marks=tensorflow_only,
        ),
        pytest.param(
            {"samples.png"},
            ["--bottleneck", "categorical_samples", "--num-samples", "3", "--likelihood", "mse"],
            marks=tensorflow_only,
        ),
        pytest.param(
            {"samples.png"},
            ["--update", "gradient", "--precision", "mixed_bfloat16", "--schedule", "rsqrt", "--prior", "pixel_cnn"],
            marks=tensorflow_only,
        ),
    ],
)
def test_a_run_leaves_its_files(tmp_path, arrays, more_files, options):
    run_dir = tmp_path / "run"
    assert train_cifar.main(command(arrays, run_dir, "--steps", "3", "--interval", "2", *options)) == 0
    assert {path.name for path in run_dir.iterdir()} == FILES | more_files
    model = runs.load_model(run_dir)
    assert (model.latent_predictor is not None) == ("samples.png" in more_files)
    figures = json.loads((run_dir / "metrics.json").read_text())
    assert ("bound_bits_per_dim" in figures) == model.bottleneck.gives_bound
    assert ("strict_bits_per_dim" in figures) == ("unigram_bits_per_dim" in figures) == model.bottleneck.has_codes


@pytest.mark.slow
@tensorflow_only
def test_evaluate_repeats_the_run_s_own_table(tmp_path, arrays):
    run_dir = tmp_path / "run"
    assert train_cifar.main(command(arrays, run_dir, "--steps", "2")) == 0
    again = ["--dataset", "npz", "--data-dir", str(arrays), "--json", str(tmp_path / "again.json")]
    assert evaluate_images.main([str(run_dir), *again]) == 0
    first, second = (json.loads(path.read_text()) for path in (run_dir / "metrics.json", tmp_path / "again.json"))
    assert second == pytest.approx(first, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--dataset", "cifar100"], "photos"),
        (["--architecture", "large"], "there is no architecture 'large'; the known ones are oord2017, roy2018, small."),
        (["--bottleneck", "lattice"], "the known ones are binary_spherical, categorical_samples, cosine, "),
        (["--likelihood", "poisson"], "poisson"),
        (["--num-codes", "1"], "num_codes is 1"),
        (["--bottleneck", "soft_em", "--num-samples", "0"], "num_samples is 0"),
        (["--bottleneck", "gaussian_samples", "--num-samples", "1"], "num_samples is 1"),
        (["--bottleneck", "gaussian", "--predictor", "joint"], "'joint', but gaussian has no codes; leave it out."),
        (["--bottleneck", "gaussian", "--codebooks", "separate"], "num_codebooks"),
        (["--prior", "wavenet"], "--prior is 'wavenet'; give one of image_transformer, pixel_cnn."),
        (["--decay", "1"], "decay is 1"),
        (["--precision", "float8"], "--precision is 'float8'; give one of float32, mixed_bfloat16, mixed_float16."),
        (["--schedule", "cosine"], "cosine"),
        (["--steps", "0"], "--steps is 0; give 1 or more."),
        (["--data-dir", "nowhere.npz"], "nowhere.npz"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2_and_leaves_nothing(tmp_path, arrays, options, sentence, capsys):
    run_dir = tmp_path / "run"
    assert train_cifar.main(command(arrays, run_dir, *options)) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert sentence in error
    assert not run_dir.exists()


def test_a_run_directory_of_another_configuration_is_refused(tmp_path, arrays, capsys):
    run_dir = tmp_path / "run"
    assert train_cifar.main(command(arrays, run_dir, "--steps", "2")) == 0
    before = {path.name: path.stat().st_mtime_ns for path in run_dir.iterdir()}
    assert train_cifar.main(command(arrays, run_dir, "--steps", "3", "--seed", "1")) == 2
    error = capsys.readouterr().err
    assert "seed 0, not 1; steps 2, not 3" in error
    assert {path.name: path.stat().st_mtime_ns for path in run_dir.iterdir()} == before


def test_training_that_diverges_stops_with_a_sentence(tmp_path, arrays, capsys):
    options = ["--steps", "50", "--learning-rate", "1e30", "--likelihood", "mse"]
    assert train_cifar.main(command(arrays, tmp_path / "run", *options)) == 1
    assert "stopped: The loss is" in capsys.readouterr().err
    assert not (tmp_path / "run" / "model.keras").exists()


@pytest.mark.slow
@tensorflow_only  # On JAX, tests/training/test_fit.py kills a run that compiles in a second.
def test_a_run_killed_at_any_moment_ends_with_the_same_weights(tmp_path, arrays):
    options = ["--steps", "40", "--interval", "4", "--bottleneck", "soft_em", "--predictor", "after"]
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}

    def start(run_dir):
        arguments = [sys.executable, str(RECIPE), *command(arrays, run_dir, *options)]
        return subprocess.Popen(
            arguments, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )

    whole = start(tmp_path / "whole")
    assert whole.wait() == 0, whole.stderr.read()

    # Killed three times, each some moments after a line of progress: in training, in writing a checkpoint, in the
    # second stage. The delay differs from run to run; the outcome must not.
    for stage, line in (("autoencoder", 3), ("autoencoder", 2), ("predictor", 4)):
        process = start(tmp_path / "killed")
        seen = 0
        for text in process.stderr:
            seen += text.startswith(stage)
            if seen == line:
                time.sleep(random.random() * 0.2)
                process.send_signal(signal.SIGKILL)
                break
        process.wait()
    last = start(tmp_path / "killed")
    assert last.wait() == 0, last.stderr.read()

    one, other = (runs.load_model(tmp_path / name) for name in ("whole", "killed"))
    for weight, same in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(weight), keras.ops.convert_to_numpy(same), err_msg=weight.path
        )
    figures = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "killed")]
    assert figures[0] == figures[1]
