"""What batches of every kind share: epochs without a seam between them, and the pipeline that brings them."""

import itertools
from collections.abc import Callable, Mapping

import keras
import numpy as np

from vq_keras.errors import InputError

# Batches made ready ahead of the step: enough to hide a new epoch's shuffle, and under 4 MB at batch 128 of CIFAR-10.
# (A fixed number, because a buffer that tf.data tunes may still be filling, in Python, while the program ends, and
# then the program hangs.)
_PREFETCH = 8


def end_to_end(start: int, stop: int, length: int, epoch: Callable[[int], np.ndarray]) -> np.ndarray:
    """Entries `start` to `stop` of all epochs laid end to end.

    Args:
        start: the first entry, from 0.
        stop: the one after the last.
        length: entries of an epoch.
        epoch: given its number, the entries of an epoch along the first axis; called for those that are needed alone.

    Example:
        >>> end_to_end(3, 6, length=4, epoch=lambda number: 10 * number + np.arange(4))
        array([ 3, 10, 11])
    """
    epochs = range(start // length, (stop - 1) // length + 1)
    return np.concatenate([epoch(e)[max(0, start - e * length) : stop - e * length] for e in epochs])


def pipeline(batch: Callable[[int], dict], num_batches: int | None, signature: Mapping[str, tuple[tuple, type]]):
    """`batch(0)`, `batch(1)`, ... up to `num_batches`, or for ever where it is None.

    Args:
        batch: given its number, a dictionary of numpy arrays.
        num_batches: how many there are.
        signature: for each array its shape, None where batches differ, and its numpy type.

    Returns:
        On the TensorFlow backend a `tf.data.Dataset` that prefetches, else a `keras.utils.PyDataset`.
    """
    if keras.backend.backend() != "tensorflow":
        return _Batches(batch, num_batches)
    import tensorflow as tf

    def batches():
        return map(batch, itertools.count() if num_batches is None else range(num_batches))

    # Keras warns at the end of data whose length it was not told.
    length = tf.data.INFINITE_CARDINALITY if num_batches is None else num_batches
    specs = {name: tf.TensorSpec(shape, dtype) for name, (shape, dtype) in signature.items()}
    dataset = tf.data.Dataset.from_generator(batches, output_signature=specs)
    return dataset.apply(tf.data.experimental.assert_cardinality(length)).prefetch(_PREFETCH)


class _Batches(keras.utils.PyDataset):
    """A generator would do, but Keras takes no generator of dictionaries."""

    def __init__(self, batch: Callable[[int], dict], num_batches: int | None):
        super().__init__()
        self._batch = batch
        self._num_batches = num_batches

    def __getitem__(self, index: int) -> dict:
        return self._batch(index)

    @property
    def num_batches(self) -> int | None:
        return self._num_batches


def check_numbers(**numbers: tuple[int, int]) -> None:
    """Raises `InputError` where a number, given with the least it may be, is less."""
    for name, (value, least) in numbers.items():
        if value < least:
            raise InputError(f"{name} must be {least} or above, but it is {value}.")
