import io
import sys

import numpy as np
import pytest
from PIL import Image

from vq_keras.data import large_arrays, load, npz
from vq_keras.data.__main__ import main
from vq_keras.errors import InputError

tfds = pytest.importorskip("tensorflow_datasets", reason="the sets of TensorFlow Datasets are read through it")
features = tfds.features


def prepare(folder, splits, image=None, config=None, **others):
    """Writes a TFDS data directory that holds the set "tiny": for each split a list of examples, in their order."""
    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny",
        version="1.0.0",
        config=config,
        features=features.FeaturesDict({"image": image or features.Image(), **others}),
        split_datasets={split: list(enumerate(examples)) for split, examples in splits.items()},
        data_dir=folder,
        disable_shuffling=True,
    )


def plain(value, size=(6, 6), channels=3):
    return np.full((*size, channels), value, np.uint8)


def encoded(pixels, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


LABEL = features.ClassLabel(names=["cat", "dog", "owl"])
SIX = features.Image(shape=(6, 6, 3))


def labelled(values, classes):
    return [{"image": plain(value), "label": label} for value, label in zip(values, classes, strict=True)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A set of one size in 2,100 train images: more than are read at once."""
    folder = tmp_path_factory.mktemp("tfds")
    train = labelled([value % 256 for value in range(2100)], [value % 3 for value in range(2100)])
    prepare(folder, {"train": train, "test": labelled([7, 8], [2, 0])}, SIX, label=LABEL)
    return folder


def test_images_and_their_classes_in_order(prepared):
    data = load("tfds:tiny", prepared)
    assert (data.name, data.image_shape, data.class_names) == ("tiny", (6, 6, 3), ("cat", "dog", "owl"))
    np.testing.assert_array_equal(data.train[:, 0, 0, 0], np.arange(2100) % 256)
    assert (data.train == data.train[:, :1, :1, :1]).all()
    np.testing.assert_array_equal(data.train_classes, np.arange(2100) % 3)
    assert data.test[:, 3, 3, 1].tolist() == [7, 8]
    assert data.test_classes.tolist() == [2, 0]
    assert data.train_classes.dtype == data.test_classes.dtype == np.int32


def test_images_of_every_size_become_those_of_a_folder(tmp_path):
    random = np.random.default_rng(0)
    sizes = [(40, 60), (61, 33), (16, 16), (9, 5)]
    files = [encoded(random.integers(0, 256, (*size, 3), np.uint8)) for size in sizes]
    files.append(encoded(random.integers(0, 256, (30, 50, 3), np.uint8), "JPEG"))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    files.append(encoded(random.integers(0, 256, (30, 50, 3), np.uint8), "JPEG", exif=exif))
    for part in ("train", "test"):
        (tmp_path / "pictures" / part).mkdir(parents=True)
        for number, file in enumerate(files):
            (tmp_path / "pictures" / part / f"{number}.{'png' if number < 4 else 'jpg'}").write_bytes(file)
    examples = [{"image": file} for file in files]
    prepare(tmp_path / "tfds", {"train": examples, "test": examples}, config="large")
    data, expected = load("tfds:tiny/large", tmp_path / "tfds", 16), load("folder", tmp_path / "pictures", 16)
    np.testing.assert_array_equal(data.train, expected.train)
    np.testing.assert_array_equal(data.test, expected.test)
    assert (data.train_classes, data.test_classes, data.class_names) == (None, None, None)
    with pytest.raises(InputError, match=r"tiny/large have no one square size \(.*\): give one \(--image-size\)"):
        load("tfds:tiny/large", tmp_path / "tfds")


def test_grey_images_keep_one_channel_and_grey_files_among_colours_get_three(tmp_path):
    grey = [{"image": plain(9, channels=1)}]
    prepare(tmp_path / "grey", {"train": grey, "test": grey}, features.Image(shape=(6, 6, 1)))
    assert load("tfds:tiny", tmp_path / "grey").train.tolist() == plain(9, channels=1)[None].tolist()
    # ImageNet has grey JPEG files, which TFDS takes for colours.
    mixed = [{"image": encoded(plain(9)[..., 0])}, {"image": encoded(plain(8))}]
    prepare(tmp_path / "mixed", {"train": mixed, "test": mixed})
    assert load("tfds:tiny", tmp_path / "mixed", 6).train.tolist() == [plain(9).tolist(), plain(8).tolist()]


def test_validation_is_the_test_where_there_is_no_other(tmp_path):
    splits = {"train": labelled([1], [0]), "validation": labelled([2], [1])}
    prepare(tmp_path / "two", splits, SIX, label=LABEL)
    assert load("tfds:tiny", tmp_path / "two").test_classes.tolist() == [1]
    # As ImageNet has it: TFDS writes -1 for a class that is not known.
    prepare(tmp_path / "three", {**splits, "test": labelled([3, 4], [-1, -1])}, SIX, label=LABEL)
    data = load("tfds:tiny", tmp_path / "three")
    assert (data.test[:, 0, 0, 0].tolist(), data.test_classes.tolist()) == ([2], [1])
    prepare(tmp_path / "known", {**splits, "test": labelled([3, 4], [2, 2])}, SIX, label=LABEL)
    assert load("tfds:tiny", tmp_path / "known").test_classes.tolist() == [2, 2]
    prepare(tmp_path / "one", {"train": labelled([1], [0]), "extra": labelled([1], [0])}, SIX, label=LABEL)
    with pytest.raises(
        InputError, match="tiny has the splits 'extra', 'train', where 'train' is needed, and 'test' or"
    ):
        load("tfds:tiny", tmp_path / "one")


@pytest.mark.parametrize(
    "image, pixels, message",
    [
        (features.Image(dtype=np.uint16), plain(1).astype(np.uint16), r"tiny are uint16 of shape \(None, None, 3\)"),
        (features.Image(shape=(6, 6, 4)), plain(1, channels=4), r"tiny are uint8 of shape \(6, 6, 4\): choose"),
        (features.Tensor(shape=(6, 6, 3), dtype=np.uint8), plain(1), "tiny has image, but no feature 'image' with"),
    ],
)
def test_images_of_another_kind_are_refused(image, pixels, message, tmp_path):
    prepare(tmp_path, {"train": [{"image": pixels}], "test": [{"image": pixels}]}, image)
    with pytest.raises(InputError, match=message):
        load("tfds:tiny", tmp_path, 6)


def test_sets_without_images_are_refused_before_a_download(tmp_path):
    with pytest.raises(InputError, match="ag_news_subset has description, label, title, but no feature 'image'"):
        load("tfds:ag_news_subset", tmp_path)
    with pytest.raises(InputError, match=r"imagenette/320px-v2 have no one square size \(.*\): give one"):
        load("tfds:imagenette/320px-v2", tmp_path)


def test_sets_that_are_downloaded_by_hand_are_told(tmp_path, monkeypatch):
    import requests

    response = requests.Response()
    response.status_code = 200
    monkeypatch.setattr(requests, "head", lambda *_, **__: response)
    monkeypatch.setattr(requests.Session, "send", lambda *_, **__: pytest.fail("TFDS went to download"))
    with pytest.raises(InputError, match=rf"imagenet2012 is not in {tmp_path}/.* and cannot be downloaded \(Assertion"):
        load("tfds:imagenet2012", tmp_path, 64)


@pytest.mark.parametrize("name", ["no_such_set", "mnist:9.9.9", "imagenette/no_such_config", ""])
def test_unknown_sets_are_told(name, tmp_path):
    with pytest.raises(InputError, match=f"TensorFlow Datasets has no data set '{name}'"):
        load(f"tfds:{name}", tmp_path)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match=r"mnist needs .*pip install 'vq_keras\[tensorflow\]'.*--dataset photos"):
        load("tfds:mnist")


def test_damage_is_told(tmp_path):
    examples = [{"image": plain(1)}, {"image": encoded(plain(2))[:-30]}]
    prepare(tmp_path, {"train": examples, "test": examples[:1]}, SIX)
    with pytest.raises(InputError, match=r"tiny in .* is damaged \(image 1 of 'train': .*\): prepare it again"):
        load("tfds:tiny", tmp_path)
    for record in tmp_path.glob("tiny/1.0.0/*.tfrecord*"):
        record.unlink()
    with pytest.raises(InputError, match=r"tiny in .* is damaged \("):
        load("tfds:tiny", tmp_path)


def test_large_sets_are_decoded_once(prepared, tmp_path, monkeypatch):
    expected = load("tfds:tiny", prepared, 8)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(large_arrays, "_SHARE_OF_MEMORY", 0)
    prepare(tmp_path / "tfds", {"train": labelled([1, 2], [0, 1]), "test": labelled([3], [2])}, SIX, label=LABEL)
    first = load("tfds:tiny", prepared, 8)
    assert isinstance(first.train, np.memmap)
    for name in ("train", "test", "train_classes", "test_classes"):
        np.testing.assert_array_equal(getattr(first, name), getattr(expected, name))
    # Another directory of the same name and another size are other arrays.
    assert load("tfds:tiny", tmp_path / "tfds", 8).train_classes.tolist() == [0, 1]
    assert load("tfds:tiny", tmp_path / "tfds").image_shape == (6, 6, 3)
    assert len(list((tmp_path / "cache" / "vq_keras").glob("tiny-1.0.0-*"))) == 3
    # Nothing else is left to read them from.
    for record in tmp_path.glob("tfds/tiny/1.0.0/*.tfrecord*"):
        record.unlink()
    again = load("tfds:tiny", tmp_path / "tfds", 8)
    assert again.test_classes.tolist() == [2]
    assert again.test[0, 4, 4].tolist() == [3, 3, 3]


def test_they_are_written_as_arrays(prepared, tmp_path, capsys):
    path = tmp_path / "tiny.npz"
    assert main(["tfds:tiny", "--data-dir", str(prepared), "--out", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: 2,100 train and 2 test images of 6x6x3 in 3 classes, 0.2 MB\n"
    written = npz.read(path)
    assert written.class_names == ("cat", "dog", "owl")
    np.testing.assert_array_equal(written.train_classes, np.arange(2100) % 3)
