import sys
import time

import pytest

from vq_keras.data import translation
from vq_keras.data.translation_data import Pairs, TranslationData
from vq_keras.errors import InputError

PARTS = {
    "train": [("Zwei Bücher.", "Two books."), (" Das Haus. ", "The house."), ("Nichts.", " ")],
    "validation": [("Drei.", "Three.")],
    "test": [("Vier.", "Four."), ("Fünf.", "Five.")],
}
NAME = "wmt14_translate/de-en"


@pytest.fixture
def files(tmp_path):
    paths = {}
    for part, pairs in PARTS.items():
        paths[part] = tmp_path / f"{part}.de", tmp_path / f"{part}.en"
        for path, sentences in zip(paths[part], zip(*pairs[:2], strict=True), strict=True):
            path.write_text("".join(f"{sentence}\n" for sentence in sentences), encoding="utf-8")
    return paths


def test_files(files):
    data = translation.load("files", **files)
    assert data.name == "files"
    assert data.train == (["Zwei Bücher.", "Das Haus."], ["Two books.", "The house."])
    assert data.validation == (["Drei."], ["Three."])
    assert data.test == (["Vier.", "Fünf."], ["Four.", "Five."])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": "numbres"}, "no data set 'numbres'; choose numbers, files, or one of TensorFlow Datasets"),
        ({"name": "numbers", "data_dir": "here"}, "'numbers' has no data directory: leave out here"),
        ({"name": "numbers", "train": ("a", "b")}, "'numbers' takes no --train: only 'files' does"),
        ({"name": NAME, "test": ("a", "b")}, f"'{NAME}' takes no --test"),
        ({"name": "files"}, "'files' needs --train and --validation and --test, each with a SOURCE and a TARGET"),
        ({"name": "files", "train": ("a", "b"), "test": ("a", "b")}, "'files' needs --validation, each"),
        ({"name": "files", "data_dir": "here"}, "'files' has no data directory: leave out here"),
    ],
)
def test_bad_names_and_places(arguments, message):
    with pytest.raises(InputError, match=message):
        translation.load(**arguments)


@pytest.mark.parametrize(
    "part, message",
    [
        (Pairs([], []), "'test' of pairs has no pairs"),
        (Pairs(["a", "b"], ["A"]), "'test' of pairs has 2 sources and 1 targets"),
    ],
)
def test_parts_without_pairs(part, message):
    good = Pairs(["a"], ["A"])
    with pytest.raises(InputError, match=message):
        TranslationData("pairs", good, good, part)


@pytest.fixture
def tfds():
    pytest.importorskip("tensorflow", reason="WMT is read through TensorFlow Datasets")
    return pytest.importorskip("tensorflow_datasets", reason="WMT is read through TensorFlow Datasets")


def prepare(tfds, folder, parts):
    """Writes a TFDS data directory that holds these pairs as WMT 14."""
    import tensorflow as tf

    builder = tfds.builder(NAME, data_dir=folder)
    tfds.dataset_builders.store_as_tfds_dataset(
        name="wmt14_translate",
        config="de-en",
        version=str(builder.version),
        features=builder.info.features,
        split_datasets={
            part: tf.data.Dataset.from_tensor_slices({"de": [de for de, _ in pairs], "en": [en for _, en in pairs]})
            for part, pairs in parts.items()
        },
        data_dir=folder,
    )


def test_the_pairs_of_tensorflow_datasets(tfds, tmp_path):
    prepare(tfds, tmp_path, PARTS)
    data = translation.load(NAME, data_dir=tmp_path)
    assert data.name == NAME
    # TFDS shuffles what it stores; the pair without a translation is left out.
    pairs = sorted(zip(*data.train, strict=True))
    assert pairs == [("The house.", "Das Haus."), ("Two books.", "Zwei Bücher.")]
    turned = translation.load(NAME, data_dir=str(tmp_path), languages=("de", "en"))
    assert (turned.validation, turned.test.sources) == ((["Drei."], ["Three."]), data.test.targets)
    with pytest.raises(InputError, match=rf"{NAME} has de, en, not en and fr: name two of its languages"):
        translation.load(NAME, data_dir=tmp_path, languages=("en", "fr"))


def test_splits_that_are_missing_and_files_that_are_damaged(tfds, tmp_path):
    prepare(tfds, tmp_path, {"train": PARTS["train"], "test": PARTS["test"]})
    with pytest.raises(InputError, match="has no split 'validation': write its pairs to files"):
        translation.load(NAME, data_dir=tmp_path)
    prepare(tfds, tmp_path / "damaged", PARTS)
    (record,) = (tmp_path / "damaged").glob("wmt14_translate/*/*/wmt14_translate-test.tfrecord*")
    record.write_bytes(record.read_bytes()[:-5])
    with pytest.raises(InputError, match=rf"{NAME} in .* is damaged"):
        translation.load(NAME, data_dir=tmp_path / "damaged")


def test_names_that_tensorflow_datasets_does_not_know(tfds, tmp_path):
    for name in ("wmt99_translate/de-en", "wmt14_translate/de-xx"):
        with pytest.raises(InputError, match=f"TensorFlow Datasets has no data set '{name}'"):
            translation.load(name, data_dir=tmp_path)


def test_without_data_and_network_it_says_so_at_once(tfds, tmp_path, monkeypatch):
    import requests

    def head(url, timeout, **options):
        assert url.startswith("http") and timeout == 5
        raise requests.ConnectionError("no network")

    monkeypatch.setattr(requests, "head", head)
    monkeypatch.setattr(requests.Session, "send", lambda *_, **__: pytest.fail("TFDS went to download"))
    start = time.perf_counter()
    with pytest.raises(InputError, match=rf"{NAME} is not in {tmp_path}.* cannot be downloaded .*--dataset numbers"):
        translation.load(NAME, data_dir=tmp_path)
    assert time.perf_counter() - start < 5
    assert not list(tmp_path.iterdir())


def test_without_tensorflow_datasets(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match=rf"{NAME} needs .*pip install 'vq_keras\[tensorflow\]'.*--dataset numbers"):
        translation.load(NAME)
