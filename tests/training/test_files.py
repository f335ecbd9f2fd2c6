import os

import pytest

from vq_keras.training.files import replace_file


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.mark.parametrize("operation", ["open", "fsync", "replace"])
def test_a_reader_sees_the_old_or_the_new(tmp_path, monkeypatch, operation):
    path = tmp_path / "folder/history.csv"
    replace_file(path, b"old")

    def die(*args, **kwargs):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, operation, die)
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"

    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in path.parent.iterdir()] == ["history.csv"]
