import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from vq_keras.data import large_arrays
from vq_keras.errors import InputError

pytest.importorskip("psutil", reason="the size of the memory is asked of psutil, which TensorFlow Datasets brings")

SHAPES = {"images": ((3, 4), np.uint8), "classes": ((3,), np.int32)}


def fill(arrays):
    arrays["images"][:] = np.arange(12).reshape(3, 4)
    arrays["classes"][:] = [5, -6, 7]


def check(arrays):
    assert {name: array.dtype.name for name, array in arrays.items()} == {"images": "uint8", "classes": "int32"}
    np.testing.assert_array_equal(arrays["images"], np.arange(12).reshape(3, 4))
    assert arrays["classes"].tolist() == [5, -6, 7]


def no_fill(arrays):
    pytest.fail("these were filled before")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vq_keras"


@pytest.fixture
def all_are_large(monkeypatch):
    monkeypatch.setattr(large_arrays, "_SHARE_OF_MEMORY", 0)


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_small_arrays_stay_in_memory(cache):
    arrays = large_arrays.filled("mine", SHAPES, fill)
    check(arrays)
    assert not isinstance(arrays["images"], np.memmap)
    assert not cache.exists()


def test_large_arrays_are_filled_once_and_mapped(cache, all_are_large):
    for filler in (fill, no_fill):
        arrays = large_arrays.filled("mine", SHAPES, filler)
        check(arrays)
        assert isinstance(arrays["images"], np.memmap)
        assert not arrays["images"].flags.writeable
        assert visible(cache) == ["mine"]
        assert visible(cache / "mine") == ["classes.npy", "images.npy"]


def test_without_a_cache_home_it_is_that_of_the_user(tmp_path, monkeypatch, all_are_large):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    large_arrays.filled("mine", SHAPES, fill)
    assert visible(tmp_path / ".cache" / "vq_keras") == ["mine"]


def test_an_error_leaves_nothing(cache, all_are_large):
    def half(arrays):
        fill(arrays)
        raise InputError("damaged")

    with pytest.raises(InputError, match=r"^damaged$"):
        large_arrays.filled("mine", SHAPES, half)
    assert [path.name for path in cache.iterdir()] == [".mine.lock"]
    check(large_arrays.filled("mine", SHAPES, fill))


def test_a_killed_process_leaves_nothing_visible_and_the_next_one_removes_the_rest(cache, all_are_large):
    program = """if True:
        import os, signal
        import numpy as np
        from vq_keras.data import large_arrays

        def killed(arrays):
            arrays["images"][:2] = 255
            os.kill(os.getpid(), signal.SIGKILL)

        large_arrays._SHARE_OF_MEMORY = 0
        large_arrays.filled("mine", {"images": ((3, 4), np.uint8), "old": ((9,), np.uint8)}, killed)
    """
    assert subprocess.run([sys.executable, "-c", program], env=os.environ).returncode == -signal.SIGKILL
    assert visible(cache) == []
    assert (cache / ".mine.writing" / "old.npy").exists()
    check(large_arrays.filled("mine", SHAPES, fill))
    assert visible(cache / "mine") == ["classes.npy", "images.npy"]
    assert not (cache / ".mine.writing").exists()


def test_two_at_the_same_time_fill_once(cache, all_are_large):
    # The lock belongs to an open file, so threads wait for each other as processes do.
    begun, go_on, got = threading.Event(), threading.Event(), []

    def slow_fill(arrays):
        begun.set()
        assert go_on.wait(60)
        fill(arrays)

    first = threading.Thread(target=lambda: got.append(large_arrays.filled("mine", SHAPES, slow_fill)))
    second = threading.Thread(target=lambda: got.append(large_arrays.filled("mine", SHAPES, no_fill)))
    first.start()
    assert begun.wait(60)
    second.start()
    second.join(0.2)
    assert second.is_alive()
    go_on.set()
    first.join()
    second.join()
    assert len(got) == 2
    for arrays in got:
        check(arrays)


def test_a_disk_that_is_too_small_is_told_before_anything_is_filled(cache):
    with pytest.raises(InputError, match=r"mine would take 1000000\.0 GB, of which [\d.]+ are free: choose a smaller"):
        large_arrays.filled("mine", {"images": ((10**6, 10**9), np.uint8)}, no_fill)
    assert visible(cache) == []


def test_damaged_files_are_told(cache, all_are_large):
    large_arrays.filled("mine", SHAPES, fill)
    path = cache / "mine" / "images.npy"
    whole = path.read_bytes()
    for content in (whole[:-5], whole[:20], b""):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"vq_keras/mine is damaged \(.*\): remove it, and it is made again"):
            large_arrays.filled("mine", SHAPES, no_fill)


def test_a_cache_that_cannot_be_written_is_told(tmp_path, monkeypatch, all_are_large):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"Cannot write .*file/vq_keras/mine: "):
        large_arrays.filled("mine", SHAPES, no_fill)
