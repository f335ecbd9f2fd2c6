"""Metrics of two replicas that share a batch against those of one device that has it all."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from metrics_on_replicas import NUM_CODES, UNEVEN, latents

BACKEND = keras.backend.backend()
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("metrics_on_replicas")]
HERE = pathlib.Path(__file__).parent
only_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="on JAX there is one global array, evenly shared")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    output = tmp_path_factory.mktemp("replicas") / "results.json"
    command = [sys.executable, str(HERE / "metrics_on_replicas.py"), str(output)]
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": str(HERE.parent)}
    subprocess.run(command, check=True, env=environment, timeout=900)
    return json.loads(output.read_text())


def numpy_figures(values):
    codes = np.round(values).astype(int)
    counts = np.bincount(codes[codes >= 0], minlength=NUM_CODES)
    shares = counts[counts > 0] / counts.sum()
    return {
        "perplexity": np.exp(-np.sum(shares * np.log(shares))),
        "codes_in_use": len(shares),
        "largest_share": shares.max(),
        "codebook_distance": np.square(values.astype("float64") - codes)[codes >= 0].mean(),
    }


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        # Sums of two halves are rounded otherwise than a sum of the whole.
        assert found[name] == pytest.approx(expected[name], rel=1e-5), name


@pytest.mark.parametrize("which", ["one", "two"])
@pytest.mark.parametrize("case", ["codes", pytest.param("uneven", marks=only_tensorflow)])
def test_every_step_and_epoch_equals_numpy(case, which, results):
    values = latents(UNEVEN if case == "uneven" else 24)
    after_steps = [numpy_figures(values[:seen]) for seen in (8, 16, len(values))]
    # Two epochs of three steps, what Keras says of either, and its evaluation.
    expected = [*after_steps, *after_steps, *after_steps[-1:] * 3]
    for found, figures in zip(results[f"{case}/{which}"], expected, strict=True):
        assert_equal({name: found[name] for name in found if name != "loss"}, figures)


def test_the_image_models_training_and_evaluation_equal_one_devices(results):
    for one, two in zip(results["images/one"], results["images/two"], strict=True):
        # TensorFlow's replicas take turns, and a later one counts the bottleneck losses of an earlier one in the loss
        # that it reports: Keras keeps them by layer. Their gradients it has not, as the weights below show.
        reported = {name for name in one if name != "loss" or BACKEND == "jax"}
        assert_equal({name: two[name] for name in reported}, {name: one[name] for name in reported})
    training, evaluation = results["images/one"]
    assert evaluation["codebook_distance"] < 0.8 * training["codebook_distance"]


def test_the_latent_predictors_training_equals_one_devices(results):
    for one, two in zip(results["predictor/one"], results["predictor/two"], strict=True):
        assert_equal(two, one)
    first, second = results["predictor/one"]
    assert second["nll_z"] < 0.9 * first["nll_z"]


@only_tensorflow
def test_updates_outside_of_a_step_count_whole(results):
    assert_equal(results["codes/outside"][0], numpy_figures(latents(8)))
