"""Trains, evaluates and samples a second autoencoder on the codes of a first one of images."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated

import tyro

from vq_keras.errors import InputError, run_command

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Without it TensorFlow's notices hide the progress.

CHOICES = {"codebooks": ("shared", "separate"), "schedule": ("exponential", "rsqrt")}


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a second autoencoder on the codes of a first one: a few latents for a whole image, and a PixelCNN that
    draws the image's codes given them (oord2017 section 4.2, figure 5).

    Writes the run's folder: model.keras, metrics.json, history.csv, reconstructions.png (images, what the first
    autoencoder makes of them, and two draws given their latents), curves.png, TensorBoard logs and checkpoints. The
    same command again continues a run that was interrupted.
    """

    first_run: Annotated[Path, tyro.conf.Positional]
    """The folder of a run of recipes/train_cifar.py with --latents-per-position 1."""
    dataset: str | None = None
    """Images, as for recipes/train_cifar.py; the first run's where not given."""
    data_dir: Path | None = None
    """Where they are, which a run does not keep."""
    image_size: int | None = None
    """Height and width that they are brought to, in pixels; the first run's where not given."""
    run_dir: Path | None = None
    """The run's folder; FIRST_RUN-two-stage-BOTTLENECK beside the first one's where not given."""

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

    steps: int = 2000
    """Training steps."""
    batch_size: int = 32
    """Images in a step."""
    learning_rate: float = 5e-3
    """Peak of Adam's learning rate."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises to its peak."""
    schedule: str = "exponential"
    """What follows: exponential (to a tenth at the end of the run) or rsqrt (inverse square root of the step)."""
    seed: int = 0
    """Of weights, data order and draws."""
    interval: int = 100
    """Steps from one row of history and checkpoint to the next."""


def resolve(config):
    """The configuration with everything filled in that the first run decides.

    Raises:
        InputError: for an unknown name or a number outside its range; where the first run is none.
    """
    from vq_keras.training import runs

    for name, known in CHOICES.items():
        if getattr(config, name) not in known:
            raise InputError(f"--{name} is {getattr(config, name)!r}; give one of {', '.join(known)}.")
    for name in ("num_latents", "steps", "batch_size", "interval"):
        if getattr(config, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(config, name)}; give 1 or more.")
    settings = runs.load_config(config.first_run)
    return dataclasses.replace(
        config,
        dataset=config.dataset or settings.get("dataset"),
        image_size=config.image_size or settings.get("image_size"),
        run_dir=config.run_dir or config.first_run.with_name(f"{config.first_run.name}-two-stage-{config.bottleneck}"),
    )


def run(config):
    config = resolve(config)
    import keras

    from vq_keras.data import images
    from vq_keras.training import image, runs, two_stage
    from vq_keras.training.fit import make_deterministic
    from vq_keras.training.optimizer import adam

    make_deterministic(config.seed)
    first = image.load(config.first_run)
    two_stage.check_first(first, config.first_run)
    model = two_stage.make_model(config, first)
    data = images.load(config.dataset, config.data_dir, config.image_size)
    image.check_shape(first, data)
    model.compile(optimizer=adam(config.learning_rate, config.steps, config.warmup_steps, config.schedule))
    # The folder is made when nothing is left that could be wrong with the configuration.
    where = ("first_run", "run_dir", "data_dir")
    decisive = {name: value for name, value in dataclasses.asdict(config).items() if name not in where}
    decisive |= {"first_run": runs.fingerprint(config.first_run), "backend": keras.backend.backend()}
    runs.claim(config.run_dir, decisive)
    two_stage.train(config, model, first, data)
    runs.save_model(model, config.run_dir)
    return two_stage.report(config, model, first, data)


def main(argv=None):
    return run_command(run, tyro.cli(Config, args=argv, description=Config.__doc__))


if __name__ == "__main__":
    sys.exit(main())
