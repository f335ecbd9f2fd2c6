import dataclasses

import numpy as np
import pytest

from vq_keras.data import ImageData, load
from vq_keras.errors import InputError


def images(number=2, height=4, width=4, channels=3, dtype=np.uint8):
    return np.zeros((number, height, width, channels), dtype)


def test_image_data_knows_its_shape_and_cannot_change():
    data = ImageData("black", images(5, 6, 7, 1), images(2, 6, 7, 1))
    assert data.image_shape == (6, 7, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.train = images()


@pytest.mark.parametrize(
    "train, test, message",
    [
        (images(dtype=np.float32), images(), "'train' of mine must be uint8 .* but it is float32"),
        (images(), images()[0], r"'test' of mine must be uint8 .* shape \(4, 4, 3\)"),
        (images(0), images(), "'train' of mine is empty"),
        (images(), images(channels=1), r"one shape, but they have \(4, 4, 3\) and \(4, 4, 1\)"),
        (images(height=5), images(), r"one shape, but they have \(5, 4, 3\) and \(4, 4, 3\)"),
    ],
)
def test_arrays_of_another_kind_are_refused(train, test, message):
    with pytest.raises(InputError, match=message):
        ImageData("mine", train, test)


def classes(*values, dtype=np.int32):
    return np.array(values, dtype)


def test_classes_and_their_names():
    data = ImageData("mine", images(3), images(2), classes(2, 0, 1), classes(0, 0), ("cat", "dog", "owl", "fox"))
    assert data.num_classes == 4
    assert ImageData("mine", images(3), images(2), classes(2, 0, 1), classes(5, 0)).num_classes == 6
    assert ImageData("mine", images(3), images(2)).num_classes is None


@pytest.mark.parametrize(
    "given, message",
    [
        ({"train_classes": classes(0, 1)}, "mine must have classes of both its train and its test images"),
        ({"test_classes": classes(0, 1)}, "mine must have classes of both its train and its test images"),
        ({"class_names": ("cat",)}, "mine must have classes of both its train and its test images, or none at all"),
        (
            {"train_classes": classes(0, 1, 1), "test_classes": classes(0, 1)},
            r"'train_classes' of mine must be int32, one for each of the 2 images, but it is int32 of shape \(3,\)",
        ),
        (
            {"train_classes": classes(0, 1), "test_classes": classes(0, 1, dtype=np.int64)},
            r"'test_classes' of mine must be int32, .* but it is int64 of shape \(2,\)",
        ),
        (
            {"train_classes": classes(0, 2), "test_classes": classes(0, 1), "class_names": ("cat", "dog")},
            "'train_classes' of mine must be from 0 to 1, but there is a 2",
        ),
        (
            {"train_classes": classes(0, 2), "test_classes": classes(0, -1)},
            "'test_classes' of mine must be from 0 to 2, but there is a -1",
        ),
    ],
)
def test_classes_that_will_not_do_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        ImageData("mine", images(), images(), **given)


def test_unknown_names_are_told_the_known_ones():
    known = r"cifar10, episodes, folder, npz, photos, tfds:NAME\[/CONFIG\]\."
    with pytest.raises(InputError, match=f"no data set 'mnist'; choose one of {known}"):
        load("mnist")


def test_image_size_must_be_positive():
    with pytest.raises(InputError, match="but it is 0"):
        load("photos", image_size=0)
