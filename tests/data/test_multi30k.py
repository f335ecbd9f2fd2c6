"""The whole way of real text: files, vocabulary, ids, batches."""

import itertools
import os
import pathlib

import numpy as np
import pytest

from vq_keras.data import translation
from vq_keras.data.pair_batches import encode_pairs, training_batches
from vq_keras.data.vocabulary import Vocabulary
from vq_keras.translator import Translator

pytest.importorskip("sentencepiece", reason="vocabularies are trained and run by SentencePiece")


@pytest.fixture(scope="module")
def data():
    folder = os.environ.get("VQ_KERAS_TEST_DATA")
    if not folder:
        pytest.skip("VQ_KERAS_TEST_DATA names no folder of data sets")
    folder = pathlib.Path(folder) / "multi30k"
    parts = {"train": "train", "validation": "val", "test": "test_2016_flickr"}
    return translation.load(
        "files", **{part: (folder / f"{name}.en.gz", folder / f"{name}.de.gz") for part, name in parts.items()}
    )


@pytest.fixture(scope="module")
def vocabulary(data):
    return Vocabulary.train(data.train, 8000)


def test_nothing_is_lost_or_dropped(data, vocabulary):
    assert [len(part.sources) for part in (data.train, data.validation, data.test)] == [29_000, 1_014, 1_000]
    assert data.train.sources[0] == "Two young, White males are outside near many bushes."
    assert vocabulary.size == 8000
    for part in (data.train, data.test):
        encoded = encode_pairs(vocabulary, part, max_length=64)
        assert encoded.num_dropped == 0
        assert vocabulary.decode(encoded.targets) == part.targets
    # Words, not letters: 13 and 12 words a caption, and the end.
    assert np.mean([len(row) for row in encoded.sources]) < 18
    assert np.mean([len(row) for row in encoded.targets]) < 18


def test_an_epoch_in_few_shapes_with_little_padding(data, vocabulary):
    encoded = encode_pairs(vocabulary, data.train, max_length=64)
    shapes, tokens, places = set(), 0, 0
    # An epoch is some 320 batches.
    for batch in itertools.islice(training_batches(encoded, tokens_per_batch=2048, seed=0, num_buckets=6), 320):
        source, target = np.asarray(batch["source"]), np.asarray(batch["target"])
        shapes.add((source.shape, target.shape))
        tokens += (source > 0).sum() + (target > 0).sum()
        places += source.size + target.size
        assert max(source.size, target.size) <= 2048
    assert len(shapes) == 6
    assert 0.17 < 1 - tokens / places < 0.2


def test_translations_come_back_in_order(data, vocabulary):
    class Echo:
        def predict_on_batch(self, source):
            return {"tokens": source, "scores": (source > 1).sum(axis=1)}

    found = Translator(Echo(), vocabulary, max_length=100).translate(data.test.targets)
    assert [each.text for each in found] == data.test.targets
