"""Trains a latent Transformer: a translator that writes a few codes one by one, and then all words at once."""

import os
import sys

import tyro

from vq_keras.errors import run_command
from vq_keras.training.latent_transformer_config import LatentTransformerConfig

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Without it TensorFlow's notices hide the progress.


def run(config):
    from vq_keras.training import latent_transformer

    latent_transformer.run(config)


def main(argv=None):
    return run_command(run, tyro.cli(LatentTransformerConfig, args=argv))


if __name__ == "__main__":
    sys.exit(main())
