"""Encoded images to square arrays, the same way for every source."""

import os
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

# What Pillow raises for damaged files depends on the format and on where the damage is.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def upright(file: str | os.PathLike | BinaryIO) -> Image.Image:
    """An image file, decoded and turned as its EXIF data says.

    Args:
        file: its path, or the open file.

    Raises:
        One of `DAMAGE` where it is no whole image.
    """
    with Image.open(file) as image:
        return ImageOps.exif_transpose(image)


def square(image: Image.Image, size: int) -> np.ndarray:
    """The central square of an image, resized with antialiasing.

    Args:
        image: of mode "L" or "RGB".
        size: height and width of the result in pixels; a square of that size keeps its pixels.

    Returns:
        uint8 (size, size, 1 or 3).

    Example:
        >>> square(Image.new("RGB", (640, 480)), 64).shape
        (64, 64, 3)
    """
    fitted = ImageOps.fit(image, (size, size), method=Image.Resampling.BICUBIC)
    return np.asarray(fitted).reshape(size, size, -1)
