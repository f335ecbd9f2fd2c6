"""What every source of images becomes: two uint8 arrays in memory, one to train on and one to test on."""

import dataclasses

import numpy as np

from vq_keras.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
    """Images to train on and images to test on.

    Because every source ends here, one order and one pipeline (`vq_keras.data.batches`) serve them all.

    Args:
        name: where the images came from, for messages and reports.
        train: uint8 array (num_images, height, width, channels), 0 to 255.
        test: the same with its own number of images; height, width and channels equal those of `train`.

    Raises:
        InputError: an array has another type or rank, holds nothing, or the two differ in image shape.

    Example:
        >>> import numpy as np
        >>> data = ImageData("noise", np.zeros((9, 32, 32, 3), "uint8"), np.zeros((1, 32, 32, 3), "uint8"))
        >>> data.image_shape
        (32, 32, 3)
    """

    name: str
    train: np.ndarray
    test: np.ndarray

    def __post_init__(self):
        for part in ("train", "test"):
            array = getattr(self, part)
            if array.dtype != np.uint8 or array.ndim != 4:
                raise InputError(
                    f"'{part}' of {self.name} must be uint8 images (number, height, width, channels), "
                    f"but it is {array.dtype} of shape {array.shape}."
                )
            if array.size == 0:
                raise InputError(f"'{part}' of {self.name} is empty (shape {array.shape}).")
        if self.train.shape[1:] != self.test.shape[1:]:
            raise InputError(
                f"The train and test images of {self.name} must have one shape, "
                f"but they have {self.train.shape[1:]} and {self.test.shape[1:]}."
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        return self.train.shape[1:]
