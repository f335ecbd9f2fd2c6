"""Two replicas that share a batch against one device that has it all."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from harness import BACKEND
from two_replicas import CASES, EVEN, OTHERS, UNEVEN, latents

# One worker takes them all: the fixture below is most of their time.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("replicas")]
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    output = tmp_path_factory.mktemp("replicas") / "results.npz"
    command = [sys.executable, str(pathlib.Path(__file__).with_name("two_replicas.py")), str(output)]
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, env=environment, timeout=900)
    with np.load(output) as arrays:
        return dict(arrays)


def parts(results, case, which):
    prefix = f"{case}/{which}/"
    found = {name.removeprefix(prefix): array for name, array in results.items() if name.startswith(prefix)}
    assert found
    return found


UNEVENLY = ["-uneven"] if BACKEND == "tensorflow" else []
VARIANTS = ["", "-masked", *UNEVENLY]
ALL = [case + variant for case in CASES for variant in VARIANTS]
ALL += [case + variant for case in OTHERS for variant in ("", *UNEVENLY)]
# TensorFlow's replicas draw, each for its own share, other numbers than one device does; JAX's draw the same.
RANDOM = ["gumbel_softmax", "hashing"]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="on JAX there is one global array")
@pytest.mark.parametrize("case", ALL)
def test_replicas_are_equal_to_the_last_bit(case, results):
    first, second = (parts(results, case, which) for which in ("two", "second"))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
        assert np.isfinite(first[name]).all()


def assert_two_equal_one(results, case):
    one, two = (parts(results, case, which) for which in ("one", "two"))
    for name in one:
        # Sums of two halves are rounded otherwise than a sum of the whole.
        np.testing.assert_allclose(two[name], one[name], rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_moving_averages_equal_one_devices(variant, results):
    assert_two_equal_one(results, "averages" + variant)


@pytest.mark.parametrize("case", ["trained", "gradient", *OTHERS])
def test_gradients_equal_one_devices(case, results):
    """Seen in the encoder, which the gradients of the output and of all losses train, and in the bottleneck's state."""
    assert np.abs(parts(results, case, "one")["kernel"] - np.eye(4)).max() > 1e-2
    if BACKEND == "jax" or case not in RANDOM:
        assert_two_equal_one(results, case)
    # Of those that count them: three batches are three steps, on however many replicas.
    assert parts(results, case, "two").get("steps", 3) == 3


@pytest.mark.parametrize("variant", VARIANTS)
def test_initialisation_takes_the_batchs_latents(variant, results):
    embeddings = parts(results, "samples" + variant, "two")["embeddings"][0]
    first_batch = latents(UNEVEN if "uneven" in variant else EVEN)[: 4 if "masked" in variant else 8]
    distances = np.abs(embeddings[:, None] - first_batch).max(-1)
    # With decay .999999 the codes have hardly moved since.
    assert (distances.min(-1) < 1e-4).all()
    if not variant:
        # From both halves.
        assert set(distances.argmin(-1) // 4) == {0, 1}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", ["samples", "kmeans", "soft_em"])
def test_codes_lie_among_the_data(case, variant, results):
    """Averages of latents, none of them masked (those are at 1e6) and none the zero that stands for one."""
    embeddings = parts(results, case + variant, "two")["embeddings"][0]
    data = latents(EVEN)
    assert (embeddings >= data.min(0) - 1e-3).all()
    assert (embeddings <= data.max(0) + 1e-3).all()
