"""Batches of codes that are in memory, in the order that images are trained in."""

import numpy as np

from vq_keras.data.batches import training_order
from vq_keras.data.batching import pipeline


def code_batches(codes: np.ndarray, batch_size: int, seed: int, start_step: int = 0):
    """Batches of codes for training, for ever, in the order of `training_order`.

    Args:
        codes: int32 (num_images, *code_shape).
        batch_size: images a batch; always full.
        seed: decides the order.
        start_step: the first step wanted, to continue a run.

    Returns:
        As `vq_keras.data.batches.training_batches`, of {"codes": int32 (batch_size, *code_shape)}.

    Raises:
        InputError: there are no codes, or a number is out of range.

    Example:
        >>> batches = code_batches(np.zeros((100, 21, 21), "int32"), batch_size=8, seed=0)
        >>> tuple(next(iter(batches))["codes"].shape)
        (8, 21, 21)
    """
    training_order(len(codes), batch_size, seed, start_step)  # Raises at once, before anything is drawn.

    def batch(index):
        indices, _ = next(training_order(len(codes), batch_size, seed, start_step + index))
        return {"codes": codes[indices]}

    return pipeline(batch, None, {"codes": ((batch_size, *codes.shape[1:]), np.int32)})
