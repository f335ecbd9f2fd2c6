"""Trains, evaluates and samples a discrete autoencoder of images with its latent predictor."""

import os
import sys

import tyro

from vq_keras.errors import run_command
from vq_keras.training.image_config import ImageConfig

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Without it TensorFlow's notices hide the progress.


def run(config):
    from vq_keras.training import image

    image.run(config)


def main(argv=None):
    return run_command(run, tyro.cli(ImageConfig, args=argv))


if __name__ == "__main__":
    sys.exit(main())
