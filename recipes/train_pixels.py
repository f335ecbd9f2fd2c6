"""Trains an autoregressive model of pixels: the likelihood that those of autoencoders are held against."""

import dataclasses
import os
import sys
from pathlib import Path

import tyro

from vq_keras.errors import run_command
from vq_keras.training.prior_config import PriorConfig

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Without it TensorFlow's notices hide the progress.


@dataclasses.dataclass(frozen=True)
class Config(PriorConfig):
    """Train a PixelCNN or an Image Transformer directly on the 256 levels of the sub-pixels of images.

    Its likelihood is exact: p(x) itself, no bound. Writes the run's folder: model.keras, metrics.json, samples.png,
    history.csv, curves.png, TensorBoard logs and checkpoints. The same command again continues a run that was
    interrupted. The data set is cifar10 where not given.
    """


def resolve(config):
    """The configuration with data set and folder filled in."""
    config.check()
    dataset = config.dataset or "cifar10"
    default = Path("runs") / f"{dataset.replace(':', '-').replace('/', '-')}-pixels-{config.prior}"
    return dataclasses.replace(config, dataset=dataset, run_dir=config.run_dir or default)


def run(config):
    config = resolve(config)
    from vq_keras.training import pixels

    return pixels.run(config)


def main(argv=None):
    return run_command(run, tyro.cli(Config, args=argv))


if __name__ == "__main__":
    sys.exit(main())
