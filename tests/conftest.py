"""Test set-up: one backend a run (KERAS_BACKEND), the same random numbers every time."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Two replicas on one machine, for the tests of synchronised statistics; must be set before JAX starts.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
os.environ.setdefault("MPLBACKEND", "agg")

import keras
import pytest

needs_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="exports and tf.data pipelines run on the TensorFlow backend"
)


@pytest.fixture(autouse=True)
def same_random_numbers():
    keras.utils.set_random_seed(1)


@pytest.fixture(autouse=True)
def float32_policy():
    yield
    keras.config.set_dtype_policy("float32")
