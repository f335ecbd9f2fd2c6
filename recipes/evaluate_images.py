"""Evaluates a trained image autoencoder on the test images of any data set."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated

import tyro

from vq_keras.errors import InputError, run_command

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@dataclasses.dataclass(frozen=True)
class Config:
    """Evaluate the model of a run on the test images of a data set, the run's own or another.

    Prints the table that training ends with, and writes it as JSON.
    """

    run_dir: Annotated[Path, tyro.conf.Positional]
    """The folder of a finished run of recipes/train_cifar.py."""
    dataset: str
    """Images: cifar10, photos, folder or npz. The unigram prior, where there are codes, is fitted to those of
    its training images."""
    json: Path
    """The file to write the figures to."""
    data_dir: str | None = None
    """Where the images are: a TFDS data directory, a folder of images, or an .npz file."""
    batch_size: int = 32
    """Images in a step."""


def evaluate(config):
    from rich.console import Console

    from vq_keras import evaluation
    from vq_keras.data import images
    from vq_keras.data.batches import test_batches
    from vq_keras.training import runs

    model = runs.load_model(config.run_dir)
    data = images.load(config.dataset, config.data_dir, model.image_shape[0])
    if data.image_shape != model.image_shape:
        raise InputError(f"the run's images are {model.image_shape}, but those of {data.name} are {data.image_shape}.")
    unigram = None
    if model.bottleneck.has_codes:
        unigram = evaluation.fit_unigram(model, test_batches(data.train, config.batch_size))
    metrics = evaluation.evaluate(model, test_batches(data.test, config.batch_size), unigram)
    evaluation.write_json(metrics, config.json)
    Console().print(evaluation.table(metrics))


def main(argv=None):
    return run_command(evaluate, tyro.cli(Config, args=argv, description=Config.__doc__))


if __name__ == "__main__":
    sys.exit(main())
