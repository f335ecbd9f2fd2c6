import numpy as np
import pytest
from PIL import Image

from vq_keras.data import load, npz
from vq_keras.data.__main__ import main

KNOWN = "cifar10, episodes, folder, npz, photos, tfds:NAME[/CONFIG]"


def test_a_folder_is_written_and_read_back(tmp_path, capsys):
    folder, path = tmp_path / "images", tmp_path / "new" / "images.npz"
    folder.mkdir()
    for value in range(20):
        Image.fromarray(np.full((9, 9, 3), value, np.uint8)).save(folder / f"{value}.png")
    assert main(["folder", "--data-dir", str(folder), "--image-size", "6", "--out", str(path)]) == 0
    # 20 * 6 * 6 * 3 bytes of pixels and the headers.
    assert capsys.readouterr().out == f"{path}: 18 train and 2 test images of 6x6x3, 0.0 MB\n"
    written, expected = npz.read(path), load("folder", folder, image_size=6)
    np.testing.assert_array_equal(written.train, expected.train)
    np.testing.assert_array_equal(written.test, expected.test)


def test_classes_are_kept(tmp_path, capsys):
    folder, path = tmp_path / "images", tmp_path / "images.npz"
    for value in range(20):
        file = folder / ("even" if value % 2 == 0 else "odd") / f"{value}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 6, 3), value, np.uint8)).save(file)
    assert main(["folder", "--data-dir", str(folder), "--image-size", "6", "--out", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: 18 train and 2 test images of 6x6x3 in 2 classes, 0.0 MB\n"
    written = npz.read(path)
    assert written.class_names == ("even", "odd")
    np.testing.assert_array_equal(written.train_classes, written.train[:, 0, 0, 0] % 2)
    np.testing.assert_array_equal(written.test_classes, written.test[:, 0, 0, 0] % 2)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["mnist"], f"error: There is no data set 'mnist'; choose one of {KNOWN}.\n"),
        (["folder"], "error: The data set 'folder' needs the image folder as the data directory (--data-dir).\n"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(arguments, message, tmp_path, capsys):
    path = tmp_path / "out.npz"
    assert main([*arguments, "--out", str(path)]) == 2
    assert capsys.readouterr() == ("", message)
    assert not path.exists()


def test_arguments_that_are_missing_end_with_status_2(capsys):
    with pytest.raises(SystemExit) as end:
        main(["photos"])
    assert end.value.code == 2
