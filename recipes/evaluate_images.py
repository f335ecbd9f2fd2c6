"""Evaluates a trained image autoencoder on the test images of any data set."""

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
    """Evaluate the model of a run on the test images of a data set, the run's own or another.

    Prints the table that training ends with, and writes it as JSON.
    """

    run_dir: Annotated[Path, tyro.conf.Positional]
    """The folder of a finished run of recipes/train_cifar.py or train_prior.py."""
    dataset: str
    """Images, as for recipes/train_cifar.py. The unigram prior, where there are codes, is fitted to those of
    its training images."""
    json: Path
    """The file to write the figures to."""
    data_dir: str | None = None
    """Where the images are: a TFDS data directory, a folder of images or Parquet files, or an .npz file."""
    batch_size: int = 32
    """Images in a step."""


def evaluate(config):
    from vq_keras.data import images
    from vq_keras.training import image

    model = image.load(config.run_dir)
    data = images.load(config.dataset, config.data_dir, model.image_shape[0])
    image.check_shape(model, data)
    image.figures(model, data, config.batch_size, config.json)


def main(argv=None):
    return run_command(evaluate, tyro.cli(Config, args=argv))


if __name__ == "__main__":
    sys.exit(main())
