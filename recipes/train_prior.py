"""Trains a latent predictor on the codes of a trained autoencoder."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from vq_keras.errors import run_command
from vq_keras.training.prior_config import PriorConfig

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Without it TensorFlow's notices hide the progress.


@dataclasses.dataclass(frozen=True)
class Config(PriorConfig):
    """Train a latent predictor on the codes of a run of recipes/train_cifar.py, evaluate and sample both together.

    Writes a run's folder like that of the autoencoder: model.keras (the autoencoder with this predictor), metrics.json,
    reconstructions.png, samples.png (with classes a row for each), history.csv, curves.png, TensorBoard logs and
    checkpoints. The same command again continues a run that was interrupted.

    Data set and image size are the autoencoder's where not given, and the folder is RUN-PRIOR beside its own.
    """

    PLACES: ClassVar = (*PriorConfig.PLACES, "run")

    run: Annotated[Path, tyro.conf.Positional] = tyro.MISSING
    """The autoencoder's folder."""


def resolve(config):
    """The configuration with everything filled in that the autoencoder's run decides."""
    config.check()
    run_dir = config.run_dir or config.run.with_name(f"{config.run.name}-{config.prior}")
    return dataclasses.replace(config.with_data_of(config.run), run_dir=run_dir)


def run(config):
    config = resolve(config)
    import keras

    from vq_keras.data import images
    from vq_keras.data.batches import training_batches
    from vq_keras.training import image, prior, runs
    from vq_keras.training.fit import make_deterministic

    keras.config.set_dtype_policy(config.precision)
    make_deterministic(config.seed)
    model = image.load(config.run)
    image.check_codes(model, config.run)
    data = images.load(config.dataset, config.data_dir, config.image_size)
    image.check_shape(model, data)
    prior.check_classes(data, config.class_conditional)
    predictor = prior.make(
        config.prior,
        model.code_shape,
        model.bottleneck.num_codes,
        model.bottleneck.num_codebooks,
        config.sizes(),
        data.num_classes if config.class_conditional else None,
    )
    runs.claim(config.run_dir, {**config.decisive(), "run": runs.fingerprint(config.run)})

    def batches(start_step):
        classes = data.train_classes if config.class_conditional else None
        of_images = training_batches(data.train, config.batch_size, config.seed, start_step, config.flip, classes)
        return prior.codes_of(model, of_images)

    prior.train(predictor, batches, config, config.run_dir, config.run_dir.name)
    model = model.with_latent_predictor(predictor)
    runs.save_model(model, config.run_dir)
    return image.report(config, model, data)


def main(argv=None):
    return run_command(run, tyro.cli(Config, args=argv))


if __name__ == "__main__":
    sys.exit(main())
