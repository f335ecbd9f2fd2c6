"""Images as arrays in one `.npz` file, with their classes: what a machine without TensorFlow trains from."""

import os
import pathlib
import tempfile
import zipfile
import zlib

import numpy as np

from vq_keras.data.image_data import ImageData
from vq_keras.errors import InputError

_IMAGES = ("train", "test")
_OPTIONAL = ("train_classes", "test_classes", "class_names")


def load(data_dir: str | os.PathLike | None, image_size: int | None = None) -> ImageData:
    """The source "npz" of `vq_keras.data.load`: `data_dir` is the file, `image_size` must be what it holds."""
    if data_dir is None:
        raise InputError("The data set 'npz' needs the path of its .npz file as the data directory (--data-dir).")
    data = read(data_dir)
    height, width, _ = data.image_shape
    if image_size is not None and (height, width) != (image_size, image_size):
        raise InputError(
            f"The images in {data_dir} are {height}x{width}, not {image_size}x{image_size}: "
            f"leave image_size out, or write them again in that size."
        )
    return data


def read(path: str | os.PathLike) -> ImageData:
    """Reads a file that `write` (or `numpy.savez`) wrote.

    Args:
        path: a `.npz` file with the arrays "train" and "test", each uint8 (num_images, height, width, channels), and
            maybe "train_classes" and "test_classes", int32 (num_images,), and "class_names", texts (num_classes,).

    Returns:
        The images, as `ImageData`.

    Raises:
        InputError: the file is missing or damaged, or an array in it is missing or not as described.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}; `python -m vq_keras.data photos --out {path}` writes one.")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is damaged or is no .npz file.")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _IMAGES + _OPTIONAL if name in file.files}
    # Where the damage lies decides which of these it is.
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is damaged or is no .npz file ({error}).") from error
    missing = sorted({*_IMAGES} - {*arrays})
    if missing:
        raise InputError(f"{path} lacks the array {' and '.join(map(repr, missing))}.")
    if "class_names" in arrays:
        names = arrays["class_names"]
        if names.dtype.kind != "U" or names.ndim != 1:
            raise InputError(
                f"'class_names' of {path} must be texts (num_classes,), but it is {names.dtype} of shape {names.shape}."
            )
        arrays["class_names"] = tuple(names.tolist())
    return ImageData(str(path), **arrays)


def write(data: ImageData, path: str | os.PathLike) -> None:
    """Writes images for `read`, uncompressed: pixels hardly compress, and reading stays as fast as the disk.

    The file is written aside and renamed, so that `path` is never half written; its folder is made if need be.

    Args:
        data: the images, with their classes if they have any.
        path: the `.npz` file to write; a file that is there is replaced.

    Raises:
        InputError: the file cannot be written there.

    Example:
        >>> import numpy as np
        >>> images = np.zeros((9, 8, 8, 1), "uint8")
        >>> write(ImageData("black", images, images[:2]), "/tmp/black.npz")
        >>> read("/tmp/black.npz").train.shape
        (9, 8, 8, 1)
    """
    path = pathlib.Path(path)
    arrays = {name: getattr(data, name) for name in _IMAGES + _OPTIONAL if getattr(data, name) is not None}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A folder of our own beside the file: the rename stays on one disk, and nothing is left after an error.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as aside:
            partial = pathlib.Path(aside) / path.name
            with open(partial, "wb") as file:
                np.savez(file, **arrays)
            os.replace(partial, path)
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror}.") from error
