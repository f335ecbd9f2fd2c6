"""Trains, evaluates and samples a second autoencoder on the codes of a first one of images."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from vq_keras.errors import run_command
from vq_keras.training.image_data_config import ImageDataConfig
from vq_keras.training.training_config import TrainingConfig

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Without it TensorFlow's notices hide the progress.


@dataclasses.dataclass(frozen=True)
class Config(TrainingConfig, ImageDataConfig):
    """Train a second autoencoder on the codes of a first one: a few latents for a whole image, and a PixelCNN that
    draws the image's codes given them (oord2017 section 4.2, figure 5).

    Writes the run's folder: model.keras, metrics.json, history.csv, reconstructions.png (images, what the first
    autoencoder makes of them, and two draws given their latents), curves.png, TensorBoard logs and checkpoints. The
    same command again continues a run that was interrupted.

    Data set and image size are the first run's where not given, and the folder is FIRST_RUN-two-stage-BOTTLENECK beside
    its own.
    """

    CHOICES: ClassVar = TrainingConfig.CHOICES | {"codebooks": ("shared", "separate")}
    COUNTS: ClassVar = (*TrainingConfig.COUNTS, "batch_size", "num_latents")
    PLACES: ClassVar = (*TrainingConfig.PLACES, "first_run")

    first_run: Annotated[Path, tyro.conf.Positional] = tyro.MISSING
    """The folder of a run of recipes/train_cifar.py with --latents-per-position 1."""

    bottleneck: str = "vector_quantizer"
    """As for recipes/train_cifar.py: vector_quantizer, soft_em, ...; gaussian for the VAE to compare with."""
    bottleneck_arguments: str = "{}"
    """More arguments of the bottleneck, as JSON."""
    update: str = "ema"
    """How vector_quantizer learns its codebooks: ema or gradient."""
    num_latents: int = 3
    """Latents of an image."""
    num_codes: int = 512
    """Codes in a codebook of theirs."""
    codebooks: str = "separate"
    """separate (one for each latent) or shared (one for all)."""
    num_samples: int = 5
    """Draws for each latent with soft_em."""
    temperature: float = 16 / 512
    """Of soft_em's draws."""
    decay: float = 0.95
    """Of the codebooks' moving averages (vector_quantizer and soft_em). A step has one latent of an image for each
    codebook: an average over as many as elsewhere would take hundreds of steps, and the encoder does not wait."""
    commitment_weight: float = 0.25
    """Weight of the commitment loss (vector_quantizer and soft_em)."""

    latent_dim: int = 16
    """Dimensions of a latent."""
    hidden_dim: int = 64
    """Units of encoder and decoder."""
    pixel_cnn_layers: int = 3
    """Layers of the PixelCNN."""
    pixel_cnn_dim: int = 48
    """Its width."""
    kernel_size: int = 3
    """Of its convolutions, an odd number."""
    dropout: float = 0.0
    """Of its embeddings and residual branches."""

    learning_rate: float = 5e-3
    """Peak of Adam's learning rate."""


def resolve(config):
    """The configuration with everything filled in that the first run decides.

    Raises:
        InputError: for an unknown name or a number outside its range; where the first run is none.
    """
    config.check()
    run_dir = config.first_run.with_name(f"{config.first_run.name}-two-stage-{config.bottleneck}")
    return dataclasses.replace(config.with_data_of(config.first_run), run_dir=config.run_dir or run_dir)


def run(config):
    config = resolve(config)
    import keras

    from vq_keras.data import images
    from vq_keras.training import image, runs, two_stage
    from vq_keras.training.fit import make_deterministic
    from vq_keras.training.optimizer import adam

    keras.config.set_dtype_policy(config.precision)
    make_deterministic(config.seed)
    first = image.load(config.first_run)
    two_stage.check_first(first, config.first_run)
    model = two_stage.make_model(config, first)
    data = images.load(config.dataset, config.data_dir, config.image_size)
    image.check_shape(first, data)
    model.compile(optimizer=adam(config))
    # The folder is made when nothing is left that could be wrong with the configuration.
    runs.claim(config.run_dir, {**config.decisive(), "first_run": runs.fingerprint(config.first_run)})
    two_stage.train(config, model, first, data)
    runs.save_model(model, config.run_dir)
    return two_stage.report(config, model, first, data)


def main(argv=None):
    return run_command(run, tyro.cli(Config, args=argv))


if __name__ == "__main__":
    sys.exit(main())
