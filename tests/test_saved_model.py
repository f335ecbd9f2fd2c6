"""Writing versions: whole or not at all, whatever happens on the way."""

import os
import resource
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from vq_keras import saved_model, serving_check, warm_up
from vq_keras.errors import InputError

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow writes SavedModels")

WRITE = """
import sys
import keras
from vq_keras import saved_model
weight = keras.Variable(keras.ops.ones((1000, 1000)))
inputs = {"x": ((None, 1000), "float32")}
saved_model.write(sys.argv[1], {"f": saved_model.Signature(lambda x: {"y": x @ weight}, inputs)})
"""


def signatures(size):
    weight = keras.Variable(np.ones((size, size), "float32"))
    return {"f": saved_model.Signature(lambda x: {"y": x @ weight}, {"x": ((None, size), "float32")})}


def test_a_folder_that_is_none_of_a_saved_model_is_told(tmp_path, capsys):
    assert serving_check.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(
        f"error: {tmp_path} has no saved_model.pb: give the folder of one version"
    )
    assert serving_check.main([]) == 2
    assert capsys.readouterr().err.startswith("error: No folder was named: give the folder of one version")


def test_a_check_that_is_killed_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(saved_model.sys, "executable", "/bin/false")
    with pytest.raises(InputError, match="so it was not kept: the check ended with 1"):
        saved_model.write(tmp_path / "out", signatures(2))
    assert not list((tmp_path / "out").iterdir())


def test_an_operation_that_is_not_known_is_named(tmp_path):
    version = saved_model.write(tmp_path / "out", signatures(2))
    path = version / serving_check.FILE
    # A name of the same length, so that the file stays what it was.
    path.write_bytes(path.read_bytes().replace(b"MatMul", b"MutMal"))
    command = [sys.executable, "-m", "vq_keras.serving_check", str(version)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "the operation MutMal" in result.stdout and "is not one of TensorFlow's" in result.stdout
    assert "it cannot be loaded: " in result.stdout


@pytest.mark.slow
def test_a_version_has_the_size_of_its_weights(tmp_path):
    version = saved_model.write(tmp_path, signatures(1000))
    size = sum(path.stat().st_size for path in version.rglob("*") if path.is_file())
    assert 4e6 < size < 1.05 * 4e6


@pytest.mark.slow
def test_a_killed_export_leaves_no_version_and_the_next_one_clears_up(tmp_path):
    command = [sys.executable, "-c", WRITE, str(tmp_path / "out")]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/*/variables/*")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".writing"]
    assert saved_model.write(tmp_path / "out", signatures(4)).name == "1"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["1"]


def test_a_full_disk_is_one_sentence_and_leaves_no_version(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(InputError, match=r"out cannot be written \(File too large\); give another directory, or"):
            saved_model.write(tmp_path / "out", signatures(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_in_place_of_the_directory_is_one_sentence(tmp_path):
    (tmp_path / "out").write_text("a file")
    for directory in (tmp_path / "out", tmp_path / "out" / "deeper"):
        with pytest.raises(InputError, match="cannot be written"):
            saved_model.write(directory, signatures(4))
    assert (tmp_path / "out").read_text() == "a file"


def test_one_process_writes_at_a_time(tmp_path):
    with (
        saved_model._aside(tmp_path / "out"),
        pytest.raises(InputError, match=r"Another process is writing to .*out: wait for it to end\."),
    ):
        saved_model.write(tmp_path / "out", signatures(4))


def test_without_the_format_of_warm_up_requests_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    monkeypatch.delitem(sys.modules, "tensorflow_serving.apis.prediction_log_pb2", raising=False)
    with pytest.raises(InputError, match=r"need tensorflow-serving-api .*: pip install 'vq_keras\[serving\]'\."):
        warm_up.check_installed()
    signature = saved_model.Signature(lambda x: {"y": x}, {"x": ((None,), "float32")}, examples=[{"x": np.ones(1)}])
    with pytest.raises(InputError, match="tensorflow-serving-api"):
        saved_model.write(tmp_path / "out", {"f": signature})
    assert not (tmp_path / "out").exists()
