"""Crops of the colour photographs inside the scikit-image package: images to train on without a download.

The crops of one photograph overlap, so train and test come from different ones. Of the photographs the package
holds, these are left out: the second frame of the stereo pair `motorcycle` (the same scene) and the star field
`hubble_deep_field` (dots on black, the same at every scale). The test photographs were chosen so that the train
photographs hold nearly all of their colours (94 % of the test pixels; with `rocket` in the test it is below 66 %).
"""

import importlib.resources
import os

import numpy as np
from PIL import Image

from vq_keras.data.image_data import ImageData
from vq_keras.errors import InputError

TRAIN_PHOTOGRAPHS = ("astronaut.png", "motorcycle_left.png", "rocket.jpg", "retina.jpg", "ihc.png")
TEST_PHOTOGRAPHS = ("chelsea.png", "coffee.png")

# 20,000 crops, 61 MB at 32x32, show each spot of the photographs several times at each scale: more would repeat them.
_TRAIN_CROPS_EACH = 4000
_TEST_CROPS_EACH = 500
# A crop whose grey values have a standard deviation below this many of 256 levels is nearly flat: empty sky, the
# black around the retina. Nine of ten crops of the other photographs have more than 13.
_FLAT = 10
_SEED = 0


def load(data_dir: str | os.PathLike | None = None, image_size: int | None = None) -> ImageData:
    """The source "photos" of `vq_keras.data.load`: 20,000 train and 1,000 test crops, every time the same ones.

    A crop is a random square of a photograph made `image_size` wide. The logarithm of the square's side is uniform
    from `image_size` pixels (texture) to the photograph's shorter side (a whole cup); nearly flat crops are drawn anew.

    Args:
        data_dir: must be None; the photographs lie in the scikit-image package.
        image_size: height and width of the crops in pixels, 32 when None.

    Returns:
        The crops, uint8 (num_crops, image_size, image_size, 3).

    Raises:
        InputError: scikit-image or a photograph of it is missing, a data directory was given, or the crops would be
            larger than a photograph.

    Example:
        >>> load(image_size=16).test.shape
        (1000, 16, 16, 3)
    """
    if data_dir is not None:
        raise InputError(f"The data set 'photos' comes with scikit-image: leave out the data directory {data_dir}.")
    size = 32 if image_size is None else image_size
    photographs = [_open(name) for name in TRAIN_PHOTOGRAPHS + TEST_PHOTOGRAPHS]
    largest = min(min(photograph.size) for photograph in photographs)
    if size > largest:
        raise InputError(f"Crops of the photographs can be at most {largest} pixels wide, not {size}.")
    crops = [
        _crops(photograph, size, _TRAIN_CROPS_EACH if name in TRAIN_PHOTOGRAPHS else _TEST_CROPS_EACH, [_SEED, number])
        for number, (name, photograph) in enumerate(zip(TRAIN_PHOTOGRAPHS + TEST_PHOTOGRAPHS, photographs, strict=True))
    ]
    num_train = len(TRAIN_PHOTOGRAPHS)
    return ImageData("photos", np.concatenate(crops[:num_train]), np.concatenate(crops[num_train:]))


def _open(name: str) -> Image.Image:
    try:
        path = importlib.resources.files("skimage") / "data" / name
        with path.open("rb") as file:
            return Image.open(file).convert("RGB")
    except ImportError as error:
        raise InputError("The data set 'photos' needs scikit-image: pip install 'vq_keras[photos]'.") from error
    except OSError as error:
        raise InputError(
            f"The installed scikit-image lacks its photograph {name}: pip install --force-reinstall scikit-image."
        ) from error


def _crops(photograph: Image.Image, size: int, number: int, seed: list[int]) -> np.ndarray:
    random = np.random.default_rng(seed)
    # The photograph at 1, 1/2, 1/4, ... of its size, so that no crop is resized from more than twice its width.
    pyramid = [photograph]
    while min(pyramid[-1].size) >= 2 * size:
        pyramid.append(pyramid[-1].reduce(2))
    crops = np.empty((number, size, size, 3), np.uint8)
    kept = 0
    while kept < number:
        side = size * (min(photograph.size) / size) ** random.random()
        left, top = (random.uniform(0, length - side) for length in photograph.size)
        level = min(int(np.log2(side / size)), len(pyramid) - 1)
        box = [edge / 2**level for edge in (left, top, left + side, top + side)]
        # Rounding can put an edge a hair beyond the reduced photograph.
        box[2:] = map(min, box[2:], pyramid[level].size)
        crop = pyramid[level].resize((size, size), Image.Resampling.BICUBIC, box=box)
        if np.asarray(crop.convert("L")).std() >= _FLAT:
            crops[kept] = crop
            kept += 1
    return crops
