"""What batches of every kind share: epochs without a seam between them, and the pipeline that brings them."""

import itertools
from collections.abc import Callable, Mapping

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
    # Here, because what reads a vocabulary, as a translator in LiteRT, needs no Keras.
    import keras

    if keras.backend.backend() != "tensorflow":
        from vq_keras.data.indexed_batches import IndexedBatches

        return IndexedBatches(batch, num_batches)
    import tensorflow as tf

    def batches():
        return map(batch, itertools.count() if num_batches is None else range(num_batches))

    # Keras warns at the end of data whose length it was not told.
    length = tf.data.INFINITE_CARDINALITY if num_batches is None else num_batches
    specs = {name: tf.TensorSpec(shape, dtype) for name, (shape, dtype) in signature.items()}
    dataset = tf.data.Dataset.from_generator(batches, output_signature=specs)
    return dataset.apply(tf.data.experimental.assert_cardinality(length)).prefetch(_PREFETCH)


def check_numbers(**numbers: tuple[int, int]) -> None:
    """Raises `InputError` where a number, given with the least it may be, is less."""
    for name, (value, least) in numbers.items():
        if value < least:
            raise InputError(f"{name} must be {least} or above, but it is {value}.")
