import dataclasses
import zipfile

import numpy as np
import pytest

from vq_keras.data import ImageData, load, npz
from vq_keras.errors import InputError

IMAGES = {"train": np.zeros((2, 4, 4, 3), np.uint8), "test": np.zeros((2, 4, 4, 3), np.uint8)}
CLASSES = {"train_classes": np.zeros(2, np.int32), "test_classes": np.zeros(2, np.int32)}


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    return ImageData(
        "noise",
        random.integers(0, 256, (9, 5, 6, 3), np.uint8),
        random.integers(0, 256, (4, 5, 6, 3), np.uint8),
    )


def test_what_was_written_is_read(data, tmp_path):
    path = tmp_path / "new" / "folder" / "noise.npz"
    npz.write(data, path)
    read = load("npz", path)
    np.testing.assert_array_equal(read.train, data.train)
    np.testing.assert_array_equal(read.test, data.test)
    assert [file.name for file in path.parent.iterdir()] == ["noise.npz"]
    with zipfile.ZipFile(path) as file:
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in file.infolist())


def test_classes_and_their_names_are_kept(data, tmp_path):
    classes = {"train_classes": np.arange(9, dtype=np.int32) % 3, "test_classes": np.array([2, 0, 1, 1], np.int32)}
    for names in (("cat", "dog", "the great grey owl"), None):
        npz.write(dataclasses.replace(data, **classes, class_names=names), tmp_path / "noise.npz")
        read = npz.read(tmp_path / "noise.npz")
        np.testing.assert_array_equal(read.train_classes, classes["train_classes"])
        np.testing.assert_array_equal(read.test_classes, classes["test_classes"])
        assert read.train_classes.dtype == np.int32
        assert read.class_names == names
    npz.write(data, tmp_path / "noise.npz")
    read = npz.read(tmp_path / "noise.npz")
    assert (read.train_classes, read.test_classes, read.class_names) == (None, None, None)


def test_a_file_without_the_suffix_keeps_its_name(data, tmp_path):
    npz.write(data, tmp_path / "noise")
    assert npz.read(tmp_path / "noise").image_shape == (5, 6, 3)


def test_a_write_that_fails_leaves_the_old_file(data, tmp_path, monkeypatch):
    path = tmp_path / "noise.npz"
    npz.write(data, path)
    before = path.read_bytes()

    def full_disk(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(InputError, match=r"Cannot write .*noise\.npz: No space left on device"):
        npz.write(data, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"train": np.zeros((2, 4, 4, 3), np.uint8)}, "lacks the array 'test'"),
        ({"images": np.zeros((2, 4, 4, 3), np.uint8)}, "lacks the array 'test' and 'train'"),
        ({"train": np.zeros((2, 4, 4, 3)), "test": np.zeros((2, 4, 4, 3), np.uint8)}, "'train' of .* float64"),
        ({"train": np.zeros((2, 4, 4), np.uint8), "test": np.zeros((2, 4, 4), np.uint8)}, r"\(2, 4, 4\)"),
        ({"train": np.zeros((2, 4, 4, 3), np.uint8), "test": np.zeros((0, 4, 4, 3), np.uint8)}, "'test' of .* empty"),
        ({"train": np.zeros((2, 4, 4, 3), np.uint8), "test": np.zeros((2, 4, 4, 1), np.uint8)}, "one shape"),
        ({"train": np.array([None]), "test": np.array([None])}, "damaged"),
        ({**IMAGES, "train_classes": np.zeros(2, np.int32)}, "both its train and its test images"),
        ({**IMAGES, **CLASSES, "class_names": np.arange(3)}, r"'class_names' of .* must be texts .* int64 .* \(3,\)"),
        ({**IMAGES, **CLASSES, "class_names": np.array("cat")}, r"'class_names' of .* must be texts .* shape \(\)"),
    ],
)
def test_wrong_arrays_are_told_with_the_file(arrays, message, tmp_path):
    path = tmp_path / "wrong.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=message) as error:
        npz.read(path)
    assert str(path) in str(error.value)


def test_damaged_files_are_told(data, tmp_path):
    path = tmp_path / "noise.npz"
    npz.write(data, path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    np.save(tmp_path / "array.npy", data.train)
    other = (tmp_path / "array.npy").read_bytes()
    for content in [whole[: len(whole) // 2], whole[:-10], bytes(flipped), b"", b"not an archive", other]:
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"noise\.npz is damaged"):
            npz.read(path)


def test_no_file(tmp_path):
    with pytest.raises(InputError, match=r"no file .*none\.npz"):
        load("npz", tmp_path / "none.npz")
    with pytest.raises(InputError, match="needs the path"):
        load("npz")


def test_image_size_must_be_that_of_the_file(data, tmp_path):
    square = ImageData("square", data.train[:, :, :5], data.test[:, :, :5])
    npz.write(square, tmp_path / "square.npz")
    npz.write(data, tmp_path / "noise.npz")
    assert load("npz", tmp_path / "square.npz", image_size=5).image_shape == (5, 5, 3)
    for name, size in [("square", 6), ("noise", 5)]:
        with pytest.raises(InputError, match=f"not {size}x{size}"):
            load("npz", tmp_path / f"{name}.npz", image_size=size)


def test_a_folder_cannot_be_written_over(data, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    with pytest.raises(InputError, match="Cannot write"):
        npz.write(data, tmp_path / "folder")
