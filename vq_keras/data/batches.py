"""Batches of images, and the order they are trained in.

The order is decided in one place, in numpy, so that training sees the same images in the same order on every
backend, and a run that is continued sees what it would have seen without the break.
"""

import functools
import itertools
from collections.abc import Iterator

import numpy as np

from vq_keras.data.batching import check_numbers, end_to_end, pipeline
from vq_keras.errors import InputError


def training_order(
    num_images: int, batch_size: int, seed: int, start_step: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The images of each training step, for ever.

    Epoch e is a random order of all images with a coin for each (flip it left to right or not), a function of
    (seed, e) alone. Epochs follow one another without a seam: a batch may hold the end of one and the start of the
    next, so every batch is full and no image is left out, and a batch may be larger than the data set.

    Args:
        num_images: how many images there are.
        batch_size: how many a step takes.
        seed: a number of 0 or above; another seed gives another order.
        start_step: the first step wanted. From there on the steps are those of a run from step 0; only one epoch's
            order is drawn to get there, whatever the number.

    Yields:
        (indices, flips): (batch_size,) int64 and (batch_size,) bool.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> indices, flips = next(training_order(num_images=1000, batch_size=4, seed=0))
        >>> indices.shape, flips.dtype.name
        ((4,), 'bool')
    """
    check_numbers(num_images=(num_images, 1), batch_size=(batch_size, 1), seed=(seed, 0), start_step=(start_step, 0))
    return (_step(num_images, batch_size, seed, step) for step in itertools.count(start_step))


def _step(num_images: int, batch_size: int, seed: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    start = step * batch_size
    stop = start + batch_size
    indices, flips = end_to_end(start, stop, num_images, lambda epoch: _epoch(num_images, seed, epoch)).T
    return indices, flips.astype(bool)


# A step needs the epoch it is in, and at its end the next one too.
@functools.lru_cache(maxsize=2)
def _epoch(num_images: int, seed: int, epoch: int) -> np.ndarray:
    """(num_images, 2): for each of its places the image, and 1 where it is mirrored."""
    random = np.random.default_rng([seed, epoch])
    return np.stack([random.permutation(num_images), random.random(num_images) < 0.5], axis=1)


def training_batches(
    images: np.ndarray,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    flip: bool = True,
    classes: np.ndarray | None = None,
):
    """Batches for training, for ever, in the order of `training_order`.

    The images stay where they are, in memory or memory-mapped; each batch is gathered from them in numpy.

    Args:
        images: uint8 (num_images, height, width, channels).
        batch_size: images a batch; always full.
        seed: decides order and flips.
        start_step: the first step wanted, to continue a run.
        flip: whether half of the images, by the seed, are mirrored left to right.
        classes: int32 (num_images,), the class of each image; None leaves "classes" out of the batches.

    Returns:
        On the TensorFlow backend a `tf.data.Dataset` that prefetches, else a `keras.utils.PyDataset`. Both iterate
        to the same {"images": uint8 (batch_size, height, width, channels), "classes": int32 (batch_size,)}, and
        Keras's `fit` takes both, with `steps_per_epoch`: its epochs go on where the one before ended.

    Raises:
        InputError: the images or classes are not as described or there are none, or a number is out of range.

    Example:
        >>> import numpy as np
        >>> batches = training_batches(np.zeros((100, 32, 32, 3), "uint8"), batch_size=8, seed=0)
        >>> tuple(next(iter(batches))["images"].shape)
        (8, 32, 32, 3)
    """
    _check_images(images, classes)
    check_numbers(batch_size=(batch_size, 1), seed=(seed, 0), start_step=(start_step, 0))

    def batch(index):
        indices, flips = _step(len(images), batch_size, seed, start_step + index)
        chosen = images[indices]
        if flip:
            chosen[flips] = chosen[flips, :, ::-1]
        return {"images": chosen} if classes is None else {"images": chosen, "classes": classes[indices]}

    return pipeline(batch, None, _signature(images, classes, batch_size))


def test_batches(images: np.ndarray, batch_size: int, classes: np.ndarray | None = None):
    """Batches for evaluation: every image once, as they lie; the last batch holds what is left.

    Args:
        images: uint8 (num_images, height, width, channels).
        batch_size: images a batch, but for the last.
        classes: int32 (num_images,), the class of each image; None leaves "classes" out of the batches.

    Returns:
        As `training_batches`, but finite.

    Raises:
        InputError: the images or classes are not as described or there are none, or `batch_size` is below 1.

    Example:
        >>> import numpy as np
        >>> [len(batch["images"]) for batch in test_batches(np.zeros((10, 8, 8, 1), "uint8"), batch_size=4)]
        [4, 4, 2]
    """
    _check_images(images, classes)
    check_numbers(batch_size=(batch_size, 1))

    def batch(index):
        rows = slice(index * batch_size, (index + 1) * batch_size)
        return {"images": images[rows]} if classes is None else {"images": images[rows], "classes": classes[rows]}

    return pipeline(batch, -(-len(images) // batch_size), _signature(images, classes, None))


# pytest takes functions whose names begin like this one's for tests wherever a test imports it.
test_batches.__test__ = False


def _signature(images: np.ndarray, classes: np.ndarray | None, batch_size: int | None) -> dict:
    signature = {"images": ((batch_size, *images.shape[1:]), np.uint8)}
    return signature if classes is None else signature | {"classes": ((batch_size,), np.int32)}


def _check_images(images: np.ndarray, classes: np.ndarray | None) -> None:
    if images.dtype != np.uint8 or images.ndim != 4:
        raise InputError(
            "The images must be uint8 of shape (number, height, width, channels), "
            f"but they are {images.dtype} of shape {images.shape}."
        )
    if images.size == 0:
        raise InputError(f"There are no images (shape {images.shape}).")
    if classes is not None and (classes.dtype != np.int32 or classes.shape != (len(images),)):
        raise InputError(
            f"The classes must be int32, one for each of the {len(images)} images, "
            f"but they are {classes.dtype} of shape {classes.shape}."
        )
