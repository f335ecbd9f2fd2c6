"""A folder of image files."""

import concurrent.futures
import os
import pathlib

import numpy as np
from PIL import Image

from vq_keras.data import decoding
from vq_keras.data.image_data import ImageData
from vq_keras.errors import InputError

_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}
_SEED = 0
_TEST_EVERY = 10


def load(data_dir: str | os.PathLike | None, image_size: int | None = None) -> ImageData:
    """The source "folder" of `vq_keras.data.load`: the PNG, JPEG, WebP and BMP files in a folder and below it.

    With subfolders `train` and `test` these are the two sets. Without them the files, sorted by path, are shuffled
    by a fixed seed, and every tenth is a test image: the same files give the same sets. Files of other kinds and
    names that begin with a dot are passed over. Each image is turned as its EXIF data says, cut to its central
    square and resized, with antialiasing.

    Where every image lies in a subfolder of its set's folder, or below one, and the train images in two or more, the
    subfolders are the classes, sorted by name.

    Args:
        data_dir: the folder.
        image_size: height and width of the images in pixels, 32 when None.

    Returns:
        The images, uint8 (num_images, image_size, image_size, channels): 3 channels (RGB, palettes and opaque RGBA),
        or 1 where all are grey; with classes where subfolders give them.

    Raises:
        InputError: the folder is missing or holds no images, too few to part, or only one of `train` and `test`;
            `test` has classes that `train` lacks; a file is damaged, transparent, not of 8 bits, or of other channels
            than the rest (the file is named).
    """
    if data_dir is None:
        raise InputError("The data set 'folder' needs the image folder as the data directory (--data-dir).")
    folder = pathlib.Path(data_dir)
    train, test = _split(folder)
    names, train_classes, test_classes = _classes(folder, train, test)
    images = _read(train + test, 32 if image_size is None else image_size)
    return ImageData(
        str(folder), images[: len(train)], images[len(train) :], train_classes, test_classes, class_names=names
    )


def _split(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    if not folder.is_dir():
        raise InputError(f"There is no image folder {folder}.")
    parts = [folder / "train", folder / "test"]
    if any(part.is_dir() for part in parts):
        for part in parts:
            if not part.is_dir():
                raise InputError(f"The image folder {folder} has no subfolder '{part.name}': make both or neither.")
        return _files(parts[0]), _files(parts[1])
    files = _files(folder)
    if len(files) < 2:
        raise InputError(f"The image folder {folder} holds one image; training and testing need at least one each.")
    order = np.random.default_rng(_SEED).permutation(len(files))
    is_test = np.arange(len(files)) % _TEST_EVERY == 0
    return [files[i] for i in order[~is_test]], [files[i] for i in order[is_test]]


def _classes(folder: pathlib.Path, train: list[pathlib.Path], test: list[pathlib.Path]):
    """The class names, the classes of `train` and those of `test`, or None three times where there are no classes."""
    if (folder / "train").is_dir():
        of_train, of_test = _subfolders(train, folder / "train"), _subfolders(test, folder / "test")
        names = sorted(set(of_train))
    else:
        of_train, of_test = _subfolders(train, folder), _subfolders(test, folder)
        names = sorted({*of_train, *of_test})
    if "" in of_train + of_test or len(names) < 2:
        return None, None, None
    unknown = sorted(set(of_test) - set(names))
    if unknown:
        raise InputError(
            f"{folder / 'test'} has the subfolder {' and '.join(map(repr, unknown))}, a class that {folder / 'train'} "
            "lacks: give both the same classes, or put the images of one straight into it to do without classes."
        )
    numbers = {name: number for number, name in enumerate(names)}
    return tuple(names), *(np.array([numbers[name] for name in part], np.int32) for part in (of_train, of_test))


def _subfolders(files: list[pathlib.Path], folder: pathlib.Path) -> list[str]:
    """For each file the subfolder right below `folder` that it lies in, "" where it lies in none."""
    paths = [file.relative_to(folder) for file in files]
    return [path.parts[0] if len(path.parts) > 1 else "" for path in paths]


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    files = [path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")]
    if not files:
        raise InputError(f"The image folder {folder} holds no image files ({' '.join(sorted(_SUFFIXES))}).")
    return sorted(files)


def _read(files: list[pathlib.Path], size: int) -> np.ndarray:
    # Pillow decodes and resizes outside Python's lock, so threads use every core.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        images = list(pool.map(_read_one, files, [size] * len(files)))
    channels = np.array([image.shape[-1] for image in images])
    usual = np.bincount(channels).argmax()
    odd = np.flatnonzero(channels != usual)
    if len(odd):
        raise InputError(
            f"{files[odd[0]]} is {_kind(channels[odd[0]])}, while {len(files) - len(odd)} of the {len(files)} images "
            f"are {_kind(usual)}: make all of one kind."
        )
    return np.stack(images)


def _kind(channels: int) -> str:
    return {1: "grey (1 channel)", 3: "colour (3 channels)"}[int(channels)]


def _read_one(path: pathlib.Path, size: int) -> np.ndarray:
    """One image, uint8 (size, size, 1 or 3)."""
    try:
        image = decoding.upright(path)
    except decoding.DAMAGE as error:
        raise InputError(f"The image file {path} cannot be read ({error}): replace or remove it.") from error
    return decoding.square(_grey_or_rgb(image, path), size)


def _grey_or_rgb(image: Image.Image, path: pathlib.Path) -> Image.Image:
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        if rgba.getextrema()[-1][0] < 255:
            raise InputError(f"The image file {path} is transparent in places (4 channels): put it on a background.")
    mode = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGB"}.get(image.mode)
    if mode is None:
        raise InputError(f"The image file {path} has pixels of kind '{image.mode}': write it as 8-bit grey or RGB.")
    return image.convert(mode)
