"""CIFAR-10 (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images") through TensorFlow Datasets."""

import contextlib
import os

import keras
import numpy as np

from vq_keras.data.image_data import ImageData
from vq_keras.errors import InputError

_SIZE = 32
_SOURCE = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_TIMEOUT_SECONDS = 5


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
    tfds = _import_tensorflow_datasets()
    builder = tfds.builder("cifar10", data_dir=data_dir)
    if not builder.is_prepared():
        _download(tfds, builder)
    return ImageData("cifar10", _images(tfds, builder, "train"), _images(tfds, builder, "test"))


def _import_tensorflow_datasets():
    try:
        import absl.logging
        import tensorflow as tf
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise InputError(
            f"CIFAR-10 needs TensorFlow Datasets ({error}): pip install 'vq_keras[tensorflow]', or take the data set "
            "that needs no download, --dataset photos."
        ) from error
    absl.logging.set_verbosity(absl.logging.ERROR)  # TFDS warns of deprecated names that it uses itself.
    if keras.backend.backend() != "tensorflow":
        # TensorFlow only decodes images here, and would take all of the GPU's memory from the backend that trains.
        # Once it has started it has its devices, and says so with this error.
        with contextlib.suppress(RuntimeError):
            tf.config.set_visible_devices([], "GPU")
    return tfds


def _download(tfds, builder) -> None:
    import requests  # TFDS downloads with it, so it is installed, and the same proxies hold for both

    try:
        # TFDS asks an address that does not answer for minutes; one short question of our own comes first.
        requests.head(_SOURCE, timeout=_TIMEOUT_SECONDS, allow_redirects=True).raise_for_status()
        builder.download_and_prepare()
    except (OSError, tfds.download.DownloadError) as error:
        raise InputError(
            f"CIFAR-10 is not in {builder.data_dir} and cannot be downloaded ({type(error).__name__}): name the TFDS "
            "data directory that holds it (--data-dir), or take the data set that needs no download, --dataset photos."
        ) from error


def _images(tfds, builder, split: str) -> np.ndarray:
    import tensorflow as tf

    images = np.empty((builder.info.splits[split].num_examples, _SIZE, _SIZE, 3), np.uint8)
    row = 0
    try:
        dataset = builder.as_dataset(split=split, decoders=tfds.decode.PartialDecoding({"image": True}))
        for batch in dataset.batch(1000).as_numpy_iterator():
            images[row : row + len(batch["image"])] = batch["image"]
            row += len(batch["image"])
    except (tf.errors.OpError, ValueError) as error:
        raise InputError(
            f"CIFAR-10 in {builder.data_dir} is damaged ({type(error).__name__}): prepare it again."
        ) from error
    if row < len(images):
        raise InputError(f"CIFAR-10 in {builder.data_dir} is damaged: '{split}' has {row} of its {len(images)} images.")
    return images
