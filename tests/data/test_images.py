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


def test_unknown_names_are_told_the_known_ones():
    with pytest.raises(InputError, match="no data set 'mnist'; choose one of cifar10, folder, npz, photos"):
        load("mnist")


def test_image_size_must_be_positive():
    with pytest.raises(InputError, match="but it is 0"):
        load("photos", image_size=0)
