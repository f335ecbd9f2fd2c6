"""Batches by their numbers, for the backends that have no `tf.data`."""

from collections.abc import Callable

import keras


class IndexedBatches(keras.utils.PyDataset):
    """`batch(0)`, `batch(1)`, ..., since Keras takes no generator of dictionaries.

    Args:
        batch: given its number, a dictionary of numpy arrays.
        num_batches: how many there are; None for no end.

    Example:
        >>> IndexedBatches(lambda number: {"codes": np.full((2, 3), number)}, num_batches=10)[4]["codes"]
        array([[4, 4, 4],
               [4, 4, 4]])
    """

    def __init__(self, batch: Callable[[int], dict], num_batches: int | None):
        super().__init__()
        self._batch = batch
        self._num_batches = num_batches

    def __getitem__(self, index: int) -> dict:
        return self._batch(index)

    @property
    def num_batches(self) -> int | None:
        return self._num_batches
