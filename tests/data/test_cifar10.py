import io
import os
import pathlib
import sys
import time

import numpy as np
import pytest
from PIL import Image

from vq_keras.data import load
from vq_keras.errors import InputError

tf = pytest.importorskip("tensorflow", reason="CIFAR-10 is read through TensorFlow Datasets")
tfds = pytest.importorskip("tensorflow_datasets", reason="CIFAR-10 is read through TensorFlow Datasets")


NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def prepare(folder, images):
    """Writes a TFDS data directory that holds these images, a dictionary from split to uint8 array, as CIFAR-10."""
    builder = tfds.builder("cifar10", data_dir=folder)
    builder.info.features["label"].names = NAMES  # As its own preparation does.

    def examples(split):
        for number, image in enumerate(images[split]):
            yield {"id": f"{split}_{number}", "image": image, "label": number % 10}

    signature = {
        "id": tf.TensorSpec((), tf.string),
        "image": tf.TensorSpec((32, 32, 3), tf.uint8),
        "label": tf.TensorSpec((), tf.int64),
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="cifar10",
        version=str(builder.version),
        features=builder.info.features,
        split_datasets={
            split: tf.data.Dataset.from_generator(lambda split=split: examples(split), output_signature=signature)
            for split in images
        },
        data_dir=folder,
    )


def assert_same_images(got, expected):
    """TFDS shuffles what it stores."""
    assert got.dtype == np.uint8
    assert got.shape == expected.shape
    assert sorted(image.tobytes() for image in got) == sorted(image.tobytes() for image in expected)


@pytest.fixture(scope="module")
def noise():
    random = np.random.default_rng(0)
    return {split: random.integers(0, 256, (n, 32, 32, 3), np.uint8) for split, n in [("train", 25), ("test", 7)]}


@pytest.fixture(scope="module")
def prepared(noise, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    prepare(folder, noise)
    return folder


def test_the_images_of_a_data_directory(prepared, noise):
    data = load("cifar10", prepared, image_size=32)
    assert data.image_shape == (32, 32, 3)
    assert_same_images(data.train, noise["train"])
    assert_same_images(data.test, noise["test"])
    again = load("cifar10", str(prepared))
    np.testing.assert_array_equal(again.train, data.train)


def test_images_have_their_classes(prepared, noise):
    data = load("cifar10", prepared)
    assert data.class_names == tuple(NAMES)
    for images, classes, expected in (
        (data.train, data.train_classes, noise["train"]),
        (data.test, data.test_classes, noise["test"]),
    ):
        numbers = {image.tobytes(): number for number, image in enumerate(expected)}
        assert classes.dtype == np.int32
        assert classes.tolist() == [numbers[image.tobytes()] % 10 for image in images]


def test_true_images_keep_their_pixels(tmp_path):
    folder = os.environ.get("VQ_KERAS_TEST_DATA")
    if not folder:
        pytest.skip("VQ_KERAS_TEST_DATA names no folder of data sets")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(pathlib.Path(folder) / "cifar10_lossless" / "test.parquet").slice(0, 40)
    files = table.column("img").combine_chunks().field("bytes").to_pylist()
    images = np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])
    prepare(tmp_path, {"train": images[:30], "test": images[30:]})
    data = load("cifar10", tmp_path)
    assert_same_images(data.train, images[:30])
    assert_same_images(data.test, images[30:])


def test_without_data_and_network_it_says_so_at_once(tmp_path, monkeypatch):
    import requests

    asked = []

    def head(url, timeout, **options):
        asked.append(timeout)
        raise requests.ConnectionError("no network")

    monkeypatch.setattr(requests, "head", head)
    monkeypatch.setattr(requests.Session, "send", lambda *_, **__: pytest.fail("TFDS went to download"))
    start = time.perf_counter()
    with pytest.raises(InputError, match=rf"not in {tmp_path}.* cannot be downloaded .*--dataset photos"):
        load("cifar10", tmp_path)
    assert asked == [5]
    assert time.perf_counter() - start < 5
    assert not list(tmp_path.iterdir())


def test_an_answer_that_is_an_error_counts_as_no_network(tmp_path, monkeypatch):
    import requests

    response = requests.Response()
    response.status_code = 403
    monkeypatch.setattr(requests, "head", lambda *_, **__: response)
    with pytest.raises(InputError, match=r"cannot be downloaded \(HTTPError\)"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize("package", ["tensorflow", "tensorflow_datasets"])
def test_without_the_package(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"pip install 'vq_keras\[tensorflow\]'.*--dataset photos"):
        load("cifar10")


def test_other_sizes_are_refused(prepared):
    with pytest.raises(InputError, match="32x32, not 64x64"):
        load("cifar10", prepared, image_size=64)


@pytest.mark.parametrize("damage", ["cut", "empty", "missing"])
def test_damaged_records_are_told(damage, noise, tmp_path):
    prepare(tmp_path, noise)
    (record,) = tmp_path.glob("cifar10/*/cifar10-train.tfrecord*")
    content = record.read_bytes()
    if damage == "missing":
        record.unlink()
    else:
        record.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    with pytest.raises(InputError, match=r"CIFAR-10 in .* is damaged"):
        load("cifar10", tmp_path)
