"""CIFAR-10 (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images") through TensorFlow Datasets."""

import os

from vq_keras.data import tfds_images
from vq_keras.data.image_data import ImageData
from vq_keras.errors import InputError

_SIZE = 32


def load(data_dir: str | os.PathLike | None, image_size: int | None = None) -> ImageData:
    """The source "cifar10" of `vq_keras.data.load`: 50,000 train and 10,000 test images, in the order of TFDS.

    A data directory that holds fewer examples under the same name is read as it is.

    Args:
        data_dir: a TFDS data directory; None takes TFDS's own choice (TFDS_DATA_DIR, or ~/tensorflow_datasets).
            CIFAR-10 is downloaded into it if it is not there.
        image_size: None or 32.

    Returns:
        The images, uint8 (num_images, 32, 32, 3), in the ten classes.

    Raises:
        InputError: TensorFlow Datasets is not installed, the images are neither there nor downloadable, or another
            size was asked for.
    """
    if image_size not in (None, _SIZE):
        raise InputError(f"The images of CIFAR-10 are {_SIZE}x{_SIZE}, not {image_size}x{image_size}.")
    return tfds_images.load("cifar10", data_dir, title="CIFAR-10")
