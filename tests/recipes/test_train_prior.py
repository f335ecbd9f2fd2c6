"""Latent predictors trained alone, on a run's codes and on pixels, and the table of baselines."""

import json
import math

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest

from export import export_image
from recipes import compare_baselines, train_cifar, train_pixels, train_prior
from vq_keras.training import runs
from vq_keras.training.callbacks import ConsoleProgress

SIZES = ["--layers", "1", "--hidden-dim", "8", "--batch-size", "8", "--warmup-steps", "2", "--interval", "2"]

tensorflow_only = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="half a minute of compilation")


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    numbers = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "images.npz"
    parts = {name: numbers.integers(0, 256, (20, 8, 8, 3), dtype="uint8") for name in ("train", "test")}
    classes = {f"{name}_classes": np.arange(20, dtype="int32") % 3 for name in parts}
    np.savez(path, **parts, **classes)
    return path


@pytest.fixture(scope="module")
def autoencoder(arrays, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "vq"
    command = ["--dataset", "npz", "--data-dir", str(arrays), "--run-dir", str(run_dir), "--predictor", "none"]
    command += ["--batch-size", "8", "--num-codes", "16", "--latents-per-position", "1", "--steps", "4"]
    assert train_cifar.main([*command, "--interval", "2"]) == 0
    return run_dir


@pytest.mark.slow
@tensorflow_only
@pytest.mark.parametrize(
    "options", [["--class-conditional"], ["--prior", "image_transformer", "--num-heads", "2", "--block-length", "4"]]
)
def test_a_prior_s_run_is_the_autoencoder_with_that_prior(arrays, autoencoder, tmp_path, options, monkeypatch):
    command = [str(autoencoder), "--data-dir", str(arrays), *SIZES, *options]
    run_dir = tmp_path / "prior"
    assert train_prior.main([*command, "--run-dir", str(run_dir), "--steps", "4"]) == 0
    first, both = runs.load_model(autoencoder), runs.load_model(run_dir)
    images = np.load(arrays)["test"]
    np.testing.assert_array_equal(first.encode(images), both.encode(images))
    before, after = (json.loads((path / "metrics.json").read_text()) for path in (autoencoder, run_dir))
    # The prior was uniform: ln 16 nats for each of 4 codes.
    assert before["strict_bits_per_dim_codes"] == pytest.approx(4 * 4 / 192, abs=1e-6)
    assert after["strict_bits_per_dim_codes"] != before["strict_bits_per_dim_codes"]
    assert after["strict_bits_per_dim_reconstruction"] == pytest.approx(before["strict_bits_per_dim_reconstruction"])
    assert {path.name for path in run_dir.iterdir()} >= {"samples.png", "curves.png", "history.csv"}
    # One that is broken off behind its first interval ends as this one did.
    broken = tmp_path / "broken"

    def interrupt(progress, epoch, logs=None):
        if progress.step == 4:  # The last checkpoint is of step 2.
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ConsoleProgress, "on_epoch_end", interrupt)
        assert train_prior.main([*command, "--run-dir", str(broken), "--steps", "4"]) == 130
    assert not (broken / "model.keras").exists()
    assert train_prior.main([*command, "--run-dir", str(broken), "--steps", "4"]) == 0
    assert json.loads((broken / "metrics.json").read_text()) == after


@pytest.mark.slow
@tensorflow_only
@pytest.mark.parametrize("predictor", ["joint", "after"])
def test_a_predictor_of_the_autoencoder_s_own_recipe_learns_what_the_class_tells(tmp_path, predictor):
    classes = np.arange(48, dtype="int32") % 3
    noise = np.random.default_rng(0).integers(0, 20, (48, 8, 8, 3))
    images = (noise + 100 * classes[:, None, None, None]).astype("uint8")  # Dark, grey or bright.
    data, run_dir = tmp_path / "classes.npz", tmp_path / "run"
    np.savez(data, train=images, test=images, train_classes=classes, test_classes=classes)
    command = ["--dataset", "npz", "--data-dir", str(data), "--run-dir", str(run_dir), "--class-conditional"]
    command += ["--predictor", predictor, "--prior", "pixel_cnn", "--predictor-layers", "1", "--predictor-dim", "8"]
    command += ["--batch-size", "16", "--num-codes", "8", "--latents-per-position", "1", "--steps", "200"]
    assert train_cifar.main([*command, "--learning-rate", "0.01", "--interval", "100"]) == 0
    model = runs.load_model(run_dir)

    def bits_of_codes(classes):
        return model.predict({"images": images, "classes": classes}, verbose=0)["nll_z"].mean() * 4 / 192 / math.log(2)

    figures = json.loads((run_dir / "metrics.json").read_text())
    assert figures["strict_bits_per_dim_codes"] == pytest.approx(bits_of_codes(classes), abs=1e-6)  # Written so.
    assert bits_of_codes(classes) < 0.8 * bits_of_codes((classes + 1) % 3)
    height, width = plt.imread(run_dir / "samples.png").shape[:2]
    assert round(width / height) == round(8 / 3)  # A row of eight for each class.


@pytest.mark.slow
@tensorflow_only
def test_an_export_draws_codes_of_a_class(arrays, autoencoder, tmp_path):
    import tensorflow as tf

    run_dir = tmp_path / "prior"
    command = [str(autoencoder), "--data-dir", str(arrays), "--run-dir", str(run_dir), *SIZES, "--class-conditional"]
    assert train_prior.main([*command, "--steps", "20", "--learning-rate", "0.05"]) == 0
    assert export_image.main([str(run_dir), str(tmp_path / "export")]) == 0
    signatures = tf.saved_model.load(str(tmp_path / "export" / "1")).signatures
    model = runs.load_model(run_dir)
    images, classes = np.load(arrays)["test"], np.load(arrays)["test_classes"]
    outputs = model.predict({"images": images, "classes": classes}, verbose=0)
    bits = (outputs["nll_x"] * 192 + outputs["nll_z"] * 4) / 192 / math.log(2)
    # float32 sums over 192 sub-pixels in another order.
    scores = signatures["score"](images=images, classes=classes)["bits_per_dim"]
    np.testing.assert_allclose(scores, bits, rtol=1e-5)
    seeds, zeros = np.zeros(3, "int32"), np.zeros(3, "float32")
    drawn = signatures["predict_latents"](seed=seeds, temperature=zeros, classes=np.arange(3, dtype="int32"))["codes"]
    greedy = model.latent_predictor.generate(np.zeros((3, 4), "float32"), 0.0, classes=np.arange(3))
    np.testing.assert_array_equal(drawn, greedy)


@pytest.mark.slow
@tensorflow_only
def test_the_likelihood_of_pixels_is_near_uniform_at_first_and_exact(arrays, tmp_path, capsys):
    command = ["--dataset", "npz", "--data-dir", str(arrays), "--run-dir", str(tmp_path / "run"), *SIZES]
    assert train_pixels.main([*command, "--steps", "2", "--class-conditional"]) == 0
    figures = json.loads((tmp_path / "run" / "metrics.json").read_text())
    model, images = runs.load_model(tmp_path / "run"), np.load(arrays)
    samples = images["test"].astype("int32").reshape(20, 192, 1)
    logits = np.asarray(model({"samples": samples, "classes": images["test_classes"]}), "float64")
    log_p = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    bits = -np.take_along_axis(log_p, samples, -1).mean() / math.log(2)
    assert train_prior.main([str(tmp_path / "run"), "--data-dir", str(arrays)]) == 2
    assert "is no run of an image autoencoder" in capsys.readouterr().err
    # Batches of 8, 8 and 4 images in float32.
    assert figures["exact_bits_per_dim"] == pytest.approx(bits, rel=1e-5)
    assert bits == pytest.approx(8, abs=0.5)


@pytest.mark.slow
@tensorflow_only
def test_baselines_are_runs_of_their_own_and_make_a_table(arrays, tmp_path, capsys):
    command = ["--dataset", "npz", "--data-dir", str(arrays), "--run-dir", str(tmp_path), "--steps", "2"]
    command += ["--batch-size", "8", "--num-samples", "3", "--interval", "2", "--likelihood", "logistic_mixture"]
    names = ["gaussian", "vector_quantizer", "categorical_samples"]
    assert compare_baselines.main([*command, "--models", *names]) == 0
    rows = json.loads((tmp_path / "table.json").read_text())
    assert list(rows) == names
    for name in names:
        figures = json.loads((tmp_path / name / "metrics.json").read_text())
        mode = "strict" if name == "vector_quantizer" else "bound"
        assert rows[name]["bits_per_dim"] == pytest.approx(figures[f"{mode}_bits_per_dim"], abs=1e-6)
        assert rows[name]["bits_per_dim"] == pytest.approx(rows[name]["reconstruction"] + rows[name]["latents"])
    assert "4.51" in capsys.readouterr().out
    assert (tmp_path / "curves.png").exists()


@pytest.mark.parametrize(
    ("recipe", "options", "sentence"),
    [
        (train_prior, ["nowhere"], "nowhere is neither a run directory"),
        (train_prior, ["multi30k-en-de-latent"], "is no run of an image autoencoder; give one of"),
        (train_prior, ["x", "--prior", "wavenet"], "--prior is 'wavenet'; give one of image_transformer, pixel_cnn."),
        (train_pixels, ["--steps", "0"], "--steps is 0; give 1 or more."),
        (train_pixels, ["--class-conditional", "--prior", "image_transformer"], "--class-conditional needs --prior"),
        (train_pixels, ["--dataset", "photos", "--class-conditional"], "photos has no classes; leave"),
        (compare_baselines, ["--models", "wavenet"], "--models is 'wavenet'; give some of gaussian, "),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(recipe, options, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recipe.main(options) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert sentence in error
    assert not list(tmp_path.iterdir())
