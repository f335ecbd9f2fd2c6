"""The second stage end to end on tiny arrays: its files, equal figures after a break, its errors."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from recipes import train_two_stage
from vq_keras import latent_use
from vq_keras.bottlenecks import Gaussian, VectorQuantizer
from vq_keras.models.code_autoencoder import CodeAutoencoder
from vq_keras.models.image import ImageAutoencoder
from vq_keras.training import runs
from vq_keras.training.callbacks import ConsoleProgress

SIZES = [
    "--num-codes",
    "8",
    "--latent-dim",
    "4",
    "--hidden-dim",
    "8",
    "--pixel-cnn-layers",
    "1",
    "--pixel-cnn-dim",
    "8",
]
FAST = [*SIZES, "--batch-size", "8", "--warmup-steps", "2", "--interval", "2"]
FILES = {"config.json", "model.keras", "metrics.json", "history.csv", "curves.png", "reconstructions.png"}
FILES |= {"checkpoints", "tensorboard"}

tensorflow_only = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="half a minute of compilation")


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    numbers = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "images.npz"
    np.savez(path, **{name: numbers.integers(0, 256, (20, 16, 16, 3), dtype="uint8") for name in ("train", "test")})
    return path


def write_first(run_dir, bottleneck, latents_per_position=1):
    """The folder of a run of an image autoencoder, as if it had been trained."""
    runs.claim(run_dir, {"dataset": "npz", "image_size": None})
    runs.save_model(ImageAutoencoder(bottleneck, (16, 16, 3), latents_per_position=latents_per_position), run_dir)
    return run_dir


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return write_first(tmp_path_factory.mktemp("runs") / "first", VectorQuantizer(16, seed=0))


@pytest.mark.slow
def test_a_run_leaves_its_files_and_one_that_was_broken_off_ends_the_same(arrays, first, tmp_path, monkeypatch, capsys):
    command = [str(first), "--data-dir", str(arrays), "--steps", "6", *FAST]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert train_two_stage.main([*command, "--run-dir", str(whole)]) == 0
    assert {path.name for path in whole.iterdir()} == FILES
    out = capsys.readouterr().out
    assert "drop in log-likelihood" in out and "codes in use of latent 3" in out
    figures = json.loads((whole / "metrics.json").read_text())
    assert figures["bits_per_image_latents"] == 9.0
    assert figures["num_images"] == 20
    # Four rows of 16 images in two bands, 6 times as large, with the names at the left.
    with Image.open(whole / "reconstructions.png") as picture:
        assert picture.size[1] == 2 * 4 * (16 * 6 + 4) + 6

    # What is trained is the first model's codes, and what is loaded is what was evaluated.
    model, images = runs.load_model(whole), np.load(arrays)["test"]
    assert type(model) is CodeAutoencoder
    codes = keras.ops.convert_to_numpy(runs.load_model(first).encode(images)).reshape(20, 4, 4)
    assert latent_use.evaluate(model, codes, batch_size=8) == pytest.approx(figures, rel=1e-5, abs=1e-6)

    def interrupt(progress, epoch, logs=None):
        if progress.step == 4:  # The last checkpoint is of step 2.
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ConsoleProgress, "on_epoch_end", interrupt)
        assert train_two_stage.main([*command, "--run-dir", str(broken)]) == 130
    assert not (broken / "model.keras").exists()
    assert train_two_stage.main([*command, "--run-dir", str(broken)]) == 0
    for one, other in zip(model.weights, runs.load_model(broken).weights, strict=True):
        np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(each) for each in (one, other)), err_msg=one.path)
    assert json.loads((broken / "metrics.json").read_text()) == figures


@pytest.mark.slow
@tensorflow_only
@pytest.mark.parametrize(
    "options",
    [
        ["--bottleneck", "gaussian"],
        ["--bottleneck", "soft_em", "--num-samples", "2", "--codebooks", "shared", "--num-latents", "2"],
    ],
)
def test_any_bottleneck_trains(arrays, first, tmp_path, options):
    command = [
        str(first),
        "--data-dir",
        str(arrays),
        "--steps",
        "3",
        *FAST,
        *options,
        "--run-dir",
        str(tmp_path / "run"),
    ]
    assert train_two_stage.main(command) == 0
    figures = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert ("drawn_drop_bits_per_image" in figures) == ("gaussian" in options)
    if "soft_em" in options:
        assert figures["bits_per_image_latents"] == 2 * 3.0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--codebooks", "none"], "--codebooks is 'none'; give one of shared, separate."),
        (["--schedule", "cosine"], "--schedule is 'cosine'; give one of exponential, rsqrt."),
        (["--steps", "0"], "--steps is 0; give 1 or more."),
        (["--bottleneck", "lattice"], "the known ones are binary_spherical, categorical_samples, cosine, "),
        (["--bottleneck", "gaussian_samples"], "needs several draws for each image, which this model does not decode"),
        (["--num-latents", "0"], "--num-latents is 0; give 1 or more."),
        (["--kernel-size", "4"], "kernel_size is 4; give an odd number of at least 3."),
        (["--data-dir", "nowhere.npz"], "nowhere.npz"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2_and_leaves_nothing(arrays, first, tmp_path, options, sentence, capsys):
    run_dir = tmp_path / "run"
    command = [str(first), "--data-dir", str(arrays), "--run-dir", str(run_dir), *FAST, *options]
    assert_refused(command, sentence, capsys)
    assert not run_dir.exists()


def assert_refused(command, sentence, capsys):
    capsys.readouterr()
    assert train_two_stage.main(command) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert sentence in error


def test_a_first_run_that_does_not_fit_is_refused(arrays, first, tmp_path, capsys):
    def refused(run_dir, sentence):
        assert_refused(
            [str(run_dir), "--data-dir", str(arrays), "--run-dir", str(tmp_path / "run"), *FAST], sentence, capsys
        )

    refused(tmp_path / "nothing", "is neither a run directory (it has no config.json) nor one of the presets")
    several = write_first(tmp_path / "several", VectorQuantizer(16, seed=0), latents_per_position=2)
    refused(several, "has codes of the shape (4, 4, 2), several at a position: train it with --latents-per-position 1")
    model = (several / "model.keras").read_bytes()
    (several / "model.keras").write_bytes(model[: len(model) // 2])
    refused(several, "model.keras cannot be read")
    continuous = write_first(tmp_path / "continuous", Gaussian(seed=0))
    refused(continuous, "has no codes; give the run of an autoencoder with a discrete bottleneck.")
    refused("multi30k-en-de-teacher", "is no run of an image autoencoder; give one of train_cifar.py or train_prior.py")
    smaller = tmp_path / "smaller.npz"
    np.savez(smaller, **{name: np.zeros((4, 8, 8, 3), "uint8") for name in ("train", "test")})
    sentence = f"the run's images are (16, 16, 3), but those of {smaller} are (8, 8, 3)."
    assert_refused(
        [str(first), "--data-dir", str(smaller), "--run-dir", str(tmp_path / "run"), *FAST], sentence, capsys
    )
    assert not (tmp_path / "run").exists()
