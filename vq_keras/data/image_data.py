"""What every source of images becomes: two uint8 arrays, one to train on and one to test on, maybe with classes."""

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
        train_classes: int32 (num_images,), the class of each train image, from 0; None where there are no classes.
        test_classes: the same of the test images; there are both or neither.
        class_names: the name of class 0, of class 1 and so on; None where they have none.

    Raises:
        InputError: an array has another type or rank, holds nothing, or the two differ in image shape; classes are
            there for one part alone, are not as many as its images, or out of range.

    Example:
        >>> import numpy as np
        >>> data = ImageData("noise", np.zeros((9, 32, 32, 3), "uint8"), np.zeros((1, 32, 32, 3), "uint8"))
        >>> data.image_shape
        (32, 32, 3)
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    train_classes: np.ndarray | None = None
    test_classes: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None

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
        if self.train_classes is not None and self.test_classes is not None:
            self._check_classes("train")
            self._check_classes("test")
        elif any(given is not None for given in (self.train_classes, self.test_classes, self.class_names)):
            raise InputError(f"{self.name} must have classes of both its train and its test images, or none at all.")

    def _check_classes(self, part: str) -> None:
        classes, number = getattr(self, f"{part}_classes"), len(getattr(self, part))
        if classes.dtype != np.int32 or classes.shape != (number,):
            raise InputError(
                f"'{part}_classes' of {self.name} must be int32, one for each of the {number} images, "
                f"but it is {classes.dtype} of shape {classes.shape}."
            )
        for least_or_most in (classes.min(), classes.max()):
            if not 0 <= least_or_most < self.num_classes:
                raise InputError(
                    f"'{part}_classes' of {self.name} must be from 0 to {self.num_classes - 1}, "
                    f"but there is a {least_or_most}."
                )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        return self.train.shape[1:]

    @property
    def num_classes(self) -> int | None:
        """How many classes there are: the names, or one more than the largest class; None where there are none."""
        if self.train_classes is None:
            return None
        if self.class_names is not None:
            return len(self.class_names)
        return 1 + max(0, int(self.train_classes.max()), int(self.test_classes.max()))
