"""Data sets of TensorFlow Datasets: downloaded where they are missing, and read; what goes wrong in one sentence."""

import contextlib
import os
from collections.abc import Iterator

import numpy as np

from vq_keras.errors import InputError

_TIMEOUT_SECONDS = 5


def find(name: str, data_dir: str | os.PathLike | None, title: str, instead: str):
    """The builder of a data set, whether it has been downloaded or not.

    Args:
        name: its name in TFDS, with the configuration: "cifar10", "wmt14_translate/de-en".
        data_dir: a TFDS data directory; None takes TFDS's own choice (TFDS_DATA_DIR, or ~/tensorflow_datasets).
        title: what messages call it.
        instead: the arguments of a command that needs no download, for the messages.

    Returns:
        The `tfds.core.DatasetBuilder`; its features are known.

    Raises:
        InputError: TensorFlow Datasets is not installed or knows no such set.

    Example:
        >>> find("cifar10", "/data/tfds", "CIFAR-10", "--dataset photos").info.features["image"].shape
        (32, 32, 3)
    """
    try:
        import absl.logging
        import tensorflow as tf
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise InputError(
            f"{title} needs TensorFlow Datasets ({error}): pip install 'vq_keras[tensorflow]', or take the data set "
            f"that needs no download, {instead}."
        ) from error
    absl.logging.set_verbosity(absl.logging.ERROR)  # TFDS warns of deprecated names that it uses itself.
    import keras

    if keras.backend.backend() != "tensorflow":
        # TensorFlow only reads here, and would take all of the GPU's memory from the backend that trains.
        # Once it has started it has its devices, and says so with this error.
        with contextlib.suppress(RuntimeError):
            tf.config.set_visible_devices([], "GPU")
    try:
        return tfds.builder(name, data_dir=data_dir)
    except (ValueError, AssertionError) as error:  # The second for a version.
        raise InputError(
            f"TensorFlow Datasets has no data set '{name}' (or not in this configuration or version)."
        ) from error


def prepare(builder, title: str, instead: str) -> None:
    """Downloads a data set where it is missing.

    Args:
        builder: from `find`, as are `title` and `instead`.

    Raises:
        InputError: the set is neither there nor downloadable.
    """
    if builder.is_prepared():
        return
    import requests  # TFDS downloads with it, so it is installed, and the same proxies hold for both
    import tensorflow_datasets as tfds

    try:
        # TFDS asks an address that does not answer for minutes; one short question of our own comes first.
        for address in list(builder.url_infos or ())[:1]:
            requests.head(address, timeout=_TIMEOUT_SECONDS, allow_redirects=True).raise_for_status()
        builder.download_and_prepare()
    # The assertion is of sets whose licence wants them downloaded by hand.
    except (OSError, AssertionError, tfds.download.DownloadError) as error:
        raise InputError(
            f"{title} is not in {builder.data_dir} and cannot be downloaded ({type(error).__name__}): name the TFDS "
            f"data directory that holds it (--data-dir), or take the data set that needs no download, {instead}."
        ) from error


def batches(builder, split: str, title: str, decoders=None) -> Iterator[dict[str, np.ndarray]]:
    """The examples of a split, as they lie, a thousand at a time.

    Args:
        builder: from `find`, after `prepare`.
        split: one of `builder.info.splits`.
        title: what messages call the data set.
        decoders: those of `tfds.decode`, to read only some features; None reads all.

    Yields:
        A dictionary from feature to array, the examples along its first axis; texts are `bytes`.

    Raises:
        InputError: the files are damaged, or hold fewer examples than they should.
    """
    import tensorflow as tf

    count, expected = 0, builder.info.splits[split].num_examples
    try:
        for batch in builder.as_dataset(split=split, decoders=decoders).batch(1000).prefetch(1).as_numpy_iterator():
            count += len(next(iter(batch.values())))
            yield batch
    except (tf.errors.OpError, ValueError) as error:
        raise InputError(
            f"{title} in {builder.data_dir} is damaged ({type(error).__name__}): prepare it again."
        ) from error
    if count < expected:
        raise InputError(f"{title} in {builder.data_dir} is damaged: '{split}' has {count} of its {expected} examples.")
