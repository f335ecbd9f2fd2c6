"""Writes any source of images as one `.npz` file, for a machine that has only arrays to train from.

python -m vq_keras.data photos --out photos.npz
"""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from vq_keras.data import images, npz
from vq_keras.errors import InputError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Writes a set of images as the uint8 arrays "train" and "test" of one .npz file, with their classes."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """cifar10, photos, folder, episodes, npz, or tfds:NAME[/CONFIG] for another set of TensorFlow Datasets."""
    out: pathlib.Path
    """The .npz file to write."""
    data_dir: pathlib.Path | None = None
    """Where the source lies: the TFDS data directory, the image folder, the folder of episodes or the .npz file."""
    image_size: int | None = None
    """Height and width in pixels (where not given, 32 for photos and folder; the others have their own)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: its arguments; None takes those of the process.

    Returns:
        The exit status: 0, or 2 with a sentence on stderr when the input was bad.
    """
    arguments = tyro.cli(Arguments, args=argv, prog="python -m vq_keras.data")
    try:
        data = images.load(arguments.source, arguments.data_dir, arguments.image_size)
        npz.write(data, arguments.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    shape = "x".join(map(str, data.image_shape))
    megabytes = arguments.out.stat().st_size / 1e6
    counts = f"{len(data.train):,} train and {len(data.test):,} test images"
    classes = "" if data.num_classes is None else f" in {data.num_classes} classes"
    print(f"{arguments.out}: {counts} of {shape}{classes}, {megabytes:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
