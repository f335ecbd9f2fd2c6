"""Draws the learning curves of several runs in one picture."""

import dataclasses
import os
import sys
from pathlib import Path

import tyro

from vq_keras.errors import InputError, run_command

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Without it TensorFlow's notices hide the answer.


@dataclasses.dataclass(frozen=True)
class Config:
    """Draw the learning curves of runs, finished or not, in one colour each: losses, bits/dim, codes in use."""

    runs: tuple[Path, ...]
    """Folders of runs of any recipe; the names of the folders stand in the picture."""
    out: Path = Path("curves.png")
    """The picture to write."""


def compare(config):
    from vq_keras import plots
    from vq_keras.training import runs

    histories = {path.name or str(path): runs.load_history(path) for path in config.runs}
    if len(histories) < len(config.runs):
        raise InputError("two of the runs have one name: give folders of different names.")
    plots.learning_curves(config.out, histories)
    print(config.out)


def main(argv=None):
    return run_command(compare, tyro.cli(Config, args=argv))


if __name__ == "__main__":
    sys.exit(main())
