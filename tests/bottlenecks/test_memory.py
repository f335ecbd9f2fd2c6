"""Memory of a training step does not grow with latents times codes."""

import os
import pathlib
import subprocess
import sys

import pytest
from harness import BACKEND

pytestmark = pytest.mark.slow


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("name", ["vector_quantizer", "soft_em"])
def test_peak_of_a_training_step(name):
    """The distances alone, 8,192 x 65,536 in float32, would be 2,147 MB."""
    here = pathlib.Path(__file__)
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": str(here.parents[2])}
    command = [sys.executable, str(here.with_name("peak_memory.py")), name]
    output = subprocess.run(command, check=True, env=environment, timeout=600, stdout=subprocess.PIPE, text=True).stdout
    assert float(output.split()[-1]) < 600
