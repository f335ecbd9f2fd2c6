"""Test set-up: one backend a run (KERAS_BACKEND), the same random numbers every time."""

import os
import pathlib

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Two replicas on one machine, for the tests of synchronised statistics; must be set before JAX starts.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
# Replicas wait for one another in the threads that compute, as many as there are cores: with two cores, two sums that
# need not wait for each other can take both threads and wait for ever.
os.environ.setdefault("NPROC", "8")
os.environ.setdefault("MPLBACKEND", "agg")
# Most of a run on JAX is compilation, much of it of programs that another test or a process of its own has compiled.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import keras
import pytest


@pytest.fixture(autouse=True)
def same_random_numbers():
    keras.utils.set_random_seed(1)


@pytest.fixture(autouse=True)
def float32_policy():
    yield
    keras.config.set_dtype_policy("float32")
