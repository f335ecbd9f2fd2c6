"""A latent predictor alone: on the codes of a model that does not change any more, or on pixels."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import keras

from vq_keras import plots
from vq_keras.errors import InputError
from vq_keras.priors import ImageTransformer, PixelCNN
from vq_keras.training.callbacks import ConsoleProgress, StopOnFailure, TensorBoardLog
from vq_keras.training.fit import fit
from vq_keras.training.optimizer import adam


def make(
    prior: str, code_shape: tuple, num_codes: int, num_codebooks: int, sizes: dict, num_classes: int | None = None
):
    """The latent predictor of that name.

    Args:
        prior: "image_transformer" or "pixel_cnn".
        code_shape: axes of the field of codes.
        num_codes: size of a codebook.
        num_codebooks: number of codebooks.
        sizes: "num_layers", "hidden_dim" and "dropout", for an Image Transformer "num_heads" and "block_length", too.
        num_classes: of a pixel_cnn that is conditioned on a class.

    Raises:
        InputError: as the latent predictor does.

    Example:
        >>> sizes = {"num_layers": 3, "hidden_dim": 64, "dropout": 0.0}
        >>> make("pixel_cnn", (8, 8, 10), num_codes=256, num_codebooks=1, sizes=sizes, num_classes=10).num_classes
        10
    """
    shared = {name: sizes[name] for name in ("num_layers", "hidden_dim", "dropout")}
    if prior == "pixel_cnn":
        # Kernels of 5: three layers see all of an 8x8 field above a position.
        return PixelCNN(code_shape, num_codes, num_classes=num_classes, name="latent_predictor", **shared)
    return ImageTransformer(
        code_shape,
        num_codes,
        num_codebooks=num_codebooks,
        num_heads=sizes["num_heads"],
        feed_forward_dim=4 * sizes["hidden_dim"],
        block_length=sizes["block_length"],
        name="latent_predictor",
        **shared,
    )


def check_classes(data, wanted: bool) -> None:
    """Raises an `InputError` where a predictor of p(codes | class) is wanted for `ImageData` without classes."""
    if wanted and not data.num_classes:
        raise InputError(f"{data.name} has no classes; leave --class-conditional out.")


def codes_of(model, batches: Iterable[dict]) -> Iterator[dict]:
    """The codes in training, of each batch of images.

    Args:
        model: an autoencoder with codes.
        batches: dicts with "images".

    Yields:
        The dict, with "samples" (batch, n, 1) int32, too.
    """
    encode = keras.Model(model.encoder.input, model.bottleneck(model.encoder.output)["codes"])
    for batch in batches:
        codes = encode.predict_on_batch(batch["images"])
        yield {**batch, "samples": codes.reshape(len(codes), -1, 1)}


def inputs_of(predictor, batches: Iterable[dict]) -> Iterator[tuple]:
    """Of each dict what the latent predictor reads, as Keras's `fit` and `evaluate` want it."""
    for batch in batches:
        yield ({name: batch[name] for name in ("samples", "classes")} if predictor.num_classes else batch["samples"],)


def train(predictor, batches: Callable[[int], Iterable[dict]], config, run_dir: Path, name: str) -> None:
    """Trains a latent predictor alone, or goes on with it.

    Args:
        predictor: a `LatentPredictor`.
        batches: given the number of steps made so far, gives endless dicts with "samples" (batch, n, 1), and "classes"
            where the predictor has them.
        config: steps, batch_size, interval, learning_rate, warmup_steps, schedule.
        run_dir: the run's folder.
        name: of the curves.
    """
    predictor.compile(optimizer=adam(config))

    history = fit(
        predictor,
        lambda start_step: inputs_of(predictor, batches(start_step)),
        config.steps,
        run_dir,
        config.interval,
        callbacks=[
            StopOnFailure(),
            ConsoleProgress(config.steps, config.batch_size, ("nll_z",), name="predictor"),
            TensorBoardLog(run_dir / "tensorboard"),
        ],
    )
    plots.learning_curves(run_dir / "curves.png", {name: history})
