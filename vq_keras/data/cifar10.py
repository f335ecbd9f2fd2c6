"""CIFAR-10 (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images") through TensorFlow Datasets."""

import os

import numpy as np

from vq_keras.data import tfds
from vq_keras.data.image_data import ImageData
from vq_keras.errors import InputError

_SIZE = 32
_TITLE = "CIFAR-10"


def load(data_dir: str | os.PathLike | None, image_size: int | None = None) -> ImageData:
    """The source "cifar10" of `vq_keras.data.load`: 50,000 train and 10,000 test images, in the order of TFDS.

    A data directory that holds fewer examples under the same name is read as it is.

    Args:
        data_dir: a TFDS data directory; None takes TFDS's own choice (TFDS_DATA_DIR, or ~/tensorflow_datasets).
            CIFAR-10 is downloaded into it if it is not there.
        image_size: None or 32.

    Returns:
        The images, uint8 (num_images, 32, 32, 3).

    Raises:
        InputError: TensorFlow Datasets is not installed, the images are neither there nor downloadable, or another
            size was asked for.
    """
    if image_size not in (None, _SIZE):
        raise InputError(f"The images of CIFAR-10 are {_SIZE}x{_SIZE}, not {image_size}x{image_size}.")
    builder = tfds.prepared("cifar10", data_dir, _TITLE, instead="--dataset photos")
    return ImageData("cifar10", _images(builder, "train"), _images(builder, "test"))


def _images(builder, split: str) -> np.ndarray:
    from tensorflow_datasets import decode

    images = np.empty((builder.info.splits[split].num_examples, _SIZE, _SIZE, 3), np.uint8)
    row = 0
    for batch in tfds.batches(builder, split, _TITLE, decode.PartialDecoding({"image": True})):
        images[row : row + len(batch["image"])] = batch["image"]
        row += len(batch["image"])
    return images
