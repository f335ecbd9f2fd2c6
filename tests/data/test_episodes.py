import hashlib
import io
import os
import pathlib
import sys

import numpy as np
import pytest
from PIL import Image

from vq_keras.data import episodes, load, npz
from vq_keras.data.__main__ import main
from vq_keras.errors import InputError

pyarrow = pytest.importorskip("pyarrow", reason="episodes are read by PyArrow")
parquet = pytest.importorskip("pyarrow.parquet", reason="episodes are read by PyArrow")


def webp(frames):
    """One lossless image of frames (time, size, size, 3), one below the other."""
    file = io.BytesIO()
    Image.fromarray(frames.reshape(-1, *frames.shape[2:])).save(file, "WEBP", lossless=True)
    return file.getvalue()


def noise(number=3, time=5, size=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (number, time, size, size, 3), np.uint8)


def rows(frames):
    """For each episode its frames and its actions 0, 1, 2 and so on, one further in each episode."""
    return [
        {"frames": {"bytes": webp(each), "path": f"{row}.webp"}, "action": list(range(row, row + len(each)))}
        for row, each in enumerate(frames)
    ]


def write(path, table, action="int8"):
    columns = [("frames", pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]))]
    schema = pyarrow.schema(
        [*columns, ("action", pyarrow.list_(pyarrow.type_for_alias(action))), ("map", pyarrow.string())]
    )
    parquet.write_table(pyarrow.Table.from_pylist([{**row, "map": "home"} for row in table], schema), path)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "train.parquet", rows(noise()))
    write(tmp_path / "test.parquet", rows(noise(2, 4, seed=1)), action="int64")
    return tmp_path


def test_frames_and_actions(folder):
    train, test = (episodes.read(folder, part) for part in ("train", "test"))
    np.testing.assert_array_equal(train.frames, noise())
    np.testing.assert_array_equal(test.frames, noise(2, 4, seed=1))
    assert train.actions.tolist() == [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [2, 3, 4, 5, 6]]
    assert test.actions.tolist() == [[0, 1, 2, 3], [1, 2, 3, 4]]
    assert train.actions.dtype == test.actions.dtype == np.int32


def test_rows_in_several_groups_come_in_order(folder):
    table = parquet.read_table(folder / "train.parquet")
    parquet.write_table(table, folder / "train.parquet", row_group_size=1)
    np.testing.assert_array_equal(episodes.read(folder, "train").frames, noise())


def test_all_frames_are_images(folder):
    data = load("episodes", folder)
    np.testing.assert_array_equal(data.train, noise().reshape(15, 8, 8, 3))
    np.testing.assert_array_equal(data.test, noise(2, 4, seed=1).reshape(8, 8, 8, 3))
    assert data.num_classes is None


def test_frames_are_resized_each_on_its_own(folder):
    # Rows of 100 and 200 by turns, and every second frame black.
    frames = np.zeros((1, 4, 32, 32, 3), np.uint8)
    frames[:, ::2, ::2], frames[:, ::2, 1::2] = 100, 200
    write(folder / "train.parquet", rows(frames))
    data = load("episodes", folder, image_size=8)
    assert data.image_shape == (8, 8, 3)
    # Antialiasing makes 150 of the rows. At the edges the filter sees half a pair of rows, but no other frame.
    np.testing.assert_allclose(data.train[::2, 1:-1], 150, atol=1)
    np.testing.assert_allclose(data.train[::2], 150, atol=5)
    assert (data.train[1::2] == 0).all()
    assert episodes.read(folder, "train", 8).frames.shape == (1, 4, 8, 8, 3)


def test_they_are_written_as_arrays(folder, tmp_path, capsys):
    path = tmp_path / "episodes.npz"
    assert main(["episodes", "--data-dir", str(folder), "--out", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: 15 train and 8 test images of 8x8x3, 0.0 MB\n"
    np.testing.assert_array_equal(npz.read(path).train, noise().reshape(15, 8, 8, 3))


def test_folders_and_files_that_are_missing(folder):
    with pytest.raises(InputError, match=r"'episodes' needs the folder of its files .*\(--data-dir\)"):
        load("episodes")
    with pytest.raises(InputError, match=r"There is no folder of episodes .*nowhere"):
        load("episodes", folder / "nowhere")
    (folder / "train.parquet").write_bytes(b"not read, because the other is missing")
    (folder / "test.parquet").rename(folder / "validation.parquet")
    with pytest.raises(InputError, match=r"has no file test\.parquet"):
        episodes.read(folder, "test")


def test_a_missing_file_is_told_before_the_other_is_decoded(folder):
    write(folder / "train.parquet", [{"frames": {"bytes": b"damaged", "path": None}, "action": [1]}])
    (folder / "test.parquet").unlink()
    with pytest.raises(InputError, match=r"has no file test\.parquet"):
        load("episodes", folder)


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"frames": [{"bytes": b""}]}, r"train\.parquet has the columns frames, but no column 'action'"),
        ({"action": [[1]], "map": ["home"]}, r"has the columns action, map, but no column 'frames'"),
        (
            {"frames": [b""], "action": [[1]]},
            "'frames' of .* must be a struct with the field 'bytes', but it is binary",
        ),
        (
            {"frames": [{"path": ""}], "action": [[1]]},
            "must be a struct with the field 'bytes', but it is struct<path:",
        ),
        ({"frames": [{"bytes": b""}], "action": [1]}, "'action' of .* must be lists of integers, but it is int64"),
        ({"frames": [{"bytes": b""}], "action": [[0.5]]}, "must be lists of integers, but it is list<.*double>"),
    ],
)
def test_columns_that_are_missing_or_of_another_kind(columns, message, folder):
    parquet.write_table(pyarrow.table(columns), folder / "train.parquet")
    with pytest.raises(InputError, match=message):
        load("episodes", folder)


def test_episodes_that_will_not_do_are_named(folder):
    good, other = rows(noise(2)), rows(noise(1, 4))[0]
    for table, message in [
        ([], r"train\.parquet holds no episodes"),
        ([good[0], {**good[1], "action": [1, 2]}], r"Episode 1 of .*train\.parquet has 5 frames, but 2 actions"),
        ([good[0], {**good[1], "action": None}], "Episode 1 of .* has 5 frames, but 0 actions"),
        ([good[0], other], r"Episode 1 of .* has frames of shape \(4, 8, 8, 3\), while the first has \(5, 8, 8, 3\)"),
        ([good[0], {**good[1], "frames": None}], r"frames of episode 1 of .* cannot be read \(.*\): write them again"),
        (
            [{**good[0], "frames": {"bytes": webp(np.zeros((1, 9, 8, 3), np.uint8))}}],
            "episode 0 of .* are no squares one below the other: their image is 8 pixels wide and 9 high",
        ),
    ]:
        write(folder / "train.parquet", table)
        with pytest.raises(InputError, match=message):
            episodes.read(folder, "train")


@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.9])
def test_damage_is_told(keep, folder):
    good = rows(noise(2))
    image = good[1]["frames"]["bytes"]
    write(folder / "train.parquet", [good[0], {**good[1], "frames": {"bytes": image[: int(keep * len(image))]}}])
    with pytest.raises(InputError, match=r"The frames of episode 1 of .*train\.parquet cannot be read"):
        load("episodes", folder)
    whole = (folder / "test.parquet").read_bytes()
    (folder / "test.parquet").write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(InputError, match=r"test\.parquet is damaged or is no Parquet file"):
        load("episodes", folder)
    # Damage in the middle is found when the rows are read.
    middle = len(whole) // 3
    (folder / "test.parquet").write_bytes(whole[:4] + b"\xff" * middle + whole[4 + middle :])
    with pytest.raises(InputError, match=r"test\.parquet is damaged or is no Parquet file"):
        episodes.read(folder, "test")


def test_without_pyarrow(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"'episodes' needs PyArrow .*pip install 'vq_keras\[video\]'"):
        load("episodes", folder)


def test_true_episodes_keep_their_pixels():
    data = os.environ.get("VQ_KERAS_TEST_DATA")
    if not data:
        pytest.skip("VQ_KERAS_TEST_DATA names no folder of data sets")
    folder = pathlib.Path(data) / "doom_video"
    images = load("episodes", folder)
    assert images.train.shape == (128 * 64, 84, 84, 3)
    assert images.test.shape == (16 * 64, 84, 84, 3)
    sums = parquet.read_table(folder / "train.parquet", columns=["pixels_sha256"])["pixels_sha256"].to_pylist()
    assert hashlib.sha256(images.train[64 * 100 : 64 * 101].tobytes()).hexdigest() == sums[100]
    test = episodes.read(folder, "test")
    assert test.frames.shape == (16, 64, 84, 84, 3)
    assert test.actions.shape == (16, 64)
    assert set(test.actions.flat) == set(range(8))
