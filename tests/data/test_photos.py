import sys

import numpy as np
import pytest
from PIL import Image

from vq_keras.data import load, photos
from vq_keras.errors import InputError

pytest.importorskip("skimage", reason="the photographs come with scikit-image")


@pytest.fixture(scope="module")
def data():
    return load("photos")


def test_numbers_and_shape(data):
    assert data.train.shape == (20_000, 32, 32, 3)
    assert data.test.shape == (1_000, 32, 32, 3)
    assert data.train.dtype == data.test.dtype == np.uint8
    for images in (data.train, data.test):
        assert images.min() == 0
        assert images.max() == 255


def test_no_crop_is_flat(data):
    for images in (data.train, data.test):
        grey = images @ np.array([0.299, 0.587, 0.114])
        # The rule looks at grey values rounded to whole levels: that can be 0.3 off here.
        assert grey.std(axis=(1, 2)).min() > 9.7


def test_crops_differ(data):
    for images in (data.train, data.test):
        assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)


def test_crops_are_the_same_every_time(monkeypatch):
    monkeypatch.setattr(photos, "_TRAIN_CROPS_EACH", 200)
    first, second = load("photos", image_size=8), load("photos", image_size=8)
    assert first.image_shape == (8, 8, 3)
    np.testing.assert_array_equal(first.train, second.train)
    np.testing.assert_array_equal(first.test, second.test)


def test_train_and_test_show_different_photographs(monkeypatch):
    """With each photograph's number painted into its red channel, the crops tell where they come from."""
    names = photos.TRAIN_PHOTOGRAPHS + photos.TEST_PHOTOGRAPHS
    # The two frames of the stereo pair show one scene.
    assert len({name.replace("right", "left") for name in names}) == len(names)

    def numbered(name):
        pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
        pixels[..., 0] = names.index(name)
        return Image.fromarray(pixels)

    monkeypatch.setattr(photos, "_open", numbered)
    data = photos.load(image_size=8)
    number = len(photos.TRAIN_PHOTOGRAPHS)
    for images, numbers in [(data.train, range(number)), (data.test, range(number, len(names)))]:
        assert (images[..., 0] == images[:, :1, :1, 0]).all()
        of_each = np.bincount(images[:, 0, 0, 0], minlength=len(names))
        assert of_each[list(numbers)].min() == of_each.max() == len(images) // len(numbers)


def test_the_scale_is_log_uniform(monkeypatch):
    """On a ramp that rises by 1 a pixel, a crop's rise from edge to edge tells how wide a square it shows."""
    monkeypatch.setattr(photos, "_FLAT", 0)
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (256, 256, 3))
    monkeypatch.setattr(photos, "_open", lambda name: Image.fromarray(np.ascontiguousarray(ramp)))
    size = 8
    rows = photos.load(image_size=size).train[:, :, 0, 0].astype(float)
    # The middle rows only: the resize smooths the edges of the photograph.
    sides = (rows[:, 5] - rows[:, 2]) / 3 * size
    # log2(side) is uniform from 3 to 8: mean 5.5, deviation 5 / sqrt(12) = 1.44, and that of the mean of 20,000
    # draws 0.01; the rise is of whole levels, which for the smallest squares is a third.
    logarithms = np.log2(sides)
    assert abs(logarithms.mean() - 5.5) < 0.05
    assert abs(logarithms.std() - 5 / 12**0.5) < 0.05
    assert 2.3 < logarithms.min() < 3.1
    assert 7.9 < logarithms.max() < 8.1


def test_crops_larger_than_a_photograph():
    with pytest.raises(InputError, match="at most 300 pixels wide, not 301"):
        load("photos", image_size=301)


def test_a_data_directory_is_refused():
    with pytest.raises(InputError, match="leave out the data directory /some/where"):
        load("photos", "/some/where")


def test_without_scikit_image(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(InputError, match=r"pip install 'vq_keras\[photos\]'"):
        load("photos")


def test_with_a_photograph_missing(monkeypatch):
    monkeypatch.setattr(photos, "TEST_PHOTOGRAPHS", ("dog.png",))
    with pytest.raises(InputError, match=r"lacks its photograph dog\.png"):
        load("photos")
