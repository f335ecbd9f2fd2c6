"""Writes a trained translator as a preset: a small folder that is used like the folder of its run."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated

import tyro

from vq_keras.errors import run_command

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@dataclasses.dataclass(frozen=True)
class Config:
    """Write a translator's run without optimizer, checkpoints and logs, and with weights in float16.

    Every command that takes the folder of a run takes this one. Those in vq_keras/presets are found by their names.
    """

    run_dir: Annotated[Path, tyro.conf.Positional]
    """The folder of a finished run of a translator's recipe."""
    out_dir: Annotated[Path, tyro.conf.Positional]
    """The folder to write, which must not exist yet."""


def export(config):
    from vq_keras.training import half_precision

    folder = half_precision.write(config.run_dir, config.out_dir)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 1e6:.1f} MB")


def main(argv=None):
    return run_command(export, tyro.cli(Config, args=argv))


if __name__ == "__main__":
    sys.exit(main())
