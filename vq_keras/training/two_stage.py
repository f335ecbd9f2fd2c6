"""Training and report of a second autoencoder, on the codes of a first one."""

import dataclasses
import math

import keras
import numpy as np
from rich.console import Console

from vq_keras import bottlenecks, evaluation, latent_use, plots
from vq_keras.data.batches import test_batches
from vq_keras.data.code_batches import code_batches
from vq_keras.errors import InputError
from vq_keras.models.code_autoencoder import CodeAutoencoder
from vq_keras.training import bottleneck_options, image, prior, runs
from vq_keras.training.callbacks import ConsoleProgress, TensorBoardLog
from vq_keras.training.fit import fit


def check_first(model, run_dir) -> None:
    """Raises an `InputError` where the image autoencoder of a run has not one code at each position."""
    image.check_codes(model, run_dir)
    if math.prod(model.code_shape[2:]) > 1:
        raise InputError(
            f"{run_dir} has codes of the shape {model.code_shape}, several at a position: train it with "
            "--latents-per-position 1 and a bottleneck of one code."
        )


def make_model(config, first):
    """The second autoencoder of a configuration.

    Args:
        config: that of recipes/train_two_stage.py.
        first: the first one.
    """
    options = dataclasses.asdict(config)
    if config.codebooks == "separate" and config.bottleneck not in bottlenecks.CONTINUOUS:
        options["num_codebooks"] = config.num_latents
    bottleneck = bottleneck_options.make_bottleneck(
        config.bottleneck, options, config.bottleneck_arguments, config.steps, config.latent_dim
    )
    sizes = ("num_latents", "latent_dim", "hidden_dim", "pixel_cnn_layers", "pixel_cnn_dim", "kernel_size", "dropout")
    return CodeAutoencoder(
        bottleneck, first.code_shape[:2], first.bottleneck.num_codes, **{name: options[name] for name in sizes}
    )


def codes_of(first, images: np.ndarray, batch_size: int) -> np.ndarray:
    """The first autoencoder's codes of all images, int32 (images, rows, columns)."""
    shape = first.code_shape[:2]
    batches = prior.codes_of(first, test_batches(images, batch_size))
    return np.concatenate([batch["samples"].reshape(-1, *shape) for batch in batches]).astype("int32")


def train(config, model, first, data) -> None:
    """Trains the second autoencoder, or goes on with it.

    Args:
        config: that of recipes/train_two_stage.py.
        model: the second autoencoder, compiled.
        first: the first one.
        data: `ImageData`, of whose training images it is to learn the codes.
    """
    codes, examples = codes_of(first, data.train, config.batch_size), image.spread(data.test, 8)
    history = fit(
        model,
        lambda start_step: code_batches(codes, config.batch_size, config.seed, start_step),
        config.steps,
        config.run_dir,
        config.interval,
        callbacks=[
            *image.watches(model.bottleneck),
            ConsoleProgress(config.steps, config.batch_size, ("bits_per_image", "codes_in_use"), name="second stage"),
            TensorBoardLog(
                config.run_dir / "tensorboard",
                lambda: {"reconstructions": reconstructions(model, first, examples, config.seed)},
            ),
        ],
    )
    plots.learning_curves(config.run_dir / "curves.png", {config.run_dir.name: history})


def reconstructions(model, first, images, seed):
    """Images, what the first autoencoder makes of their codes, and of codes drawn twice given their latents."""
    codes = first.encode(images)
    latents = model.encode(keras.ops.reshape(codes, (-1, *model.code_shape)))
    uniforms = np.random.default_rng(seed).random((2, len(images), math.prod(model.code_shape)), dtype="float32")
    rows = {"first stage": codes}
    for name, numbers in zip(("drawn once", "drawn again"), uniforms, strict=True):
        rows[name] = keras.ops.reshape(model.generate(latents, numbers), codes.shape)
    decoded = {name: keras.ops.convert_to_numpy(first.decode(row)) for name, row in rows.items()}
    return plots.comparison_grid({"original": images, **decoded}, scale=plots.scale_of(images))


def report(config, model, first, data) -> dict:
    """The table, metrics.json and the pictures; returns the figures."""
    figures = latent_use.evaluate(model, codes_of(first, data.test, config.batch_size), config.batch_size, config.seed)
    evaluation.write_json(figures, config.run_dir / runs.METRICS)
    picture = reconstructions(model, first, image.spread(data.test, 16), config.seed)
    plots.save_png(config.run_dir / "reconstructions.png", picture)
    Console().print(latent_use.table(figures))
    print(f"model, pictures, metrics.json and TensorBoard logs: {config.run_dir}")
    return figures
