"""What the recipes of image autoencoders share: the model of a configuration, its training and its report."""

import dataclasses
import math

import keras
import numpy as np
from rich.console import Console

from vq_keras import evaluation, plots
from vq_keras.data import images
from vq_keras.data.batches import test_batches, training_batches
from vq_keras.errors import InputError
from vq_keras.models import architectures
from vq_keras.models.image import ImageAutoencoder
from vq_keras.training import bottleneck_options, prior, runs
from vq_keras.training.callbacks import ConsoleProgress, StopOnFailure, TensorBoardLog, WarnOfDyingCodes
from vq_keras.training.fit import fit, make_deterministic
from vq_keras.training.image_config import SIZES, resolve
from vq_keras.training.optimizer import adam


def make_bottleneck(config):
    options = dataclasses.asdict(config)
    if config.codebooks == "separate":
        options["num_codebooks"] = config.latents_per_position
    latent_dim = architectures.get(config.architecture).latent_dim
    return bottleneck_options.make_bottleneck(
        config.bottleneck, options, config.bottleneck_arguments, config.steps, latent_dim
    )


def make_model(config, image_shape, bottleneck, num_classes=None):
    """The autoencoder of a configuration; `num_classes` is that of the data, if they have classes."""
    latent_predictor = None
    if config.predictor == "joint":
        parts = architectures.get(config.architecture, config.latents_per_position)
        code_shape = bottleneck.code_shape(parts.code_shape(image_shape))
        latent_predictor = make_predictor(config, bottleneck, code_shape, num_classes)
    return ImageAutoencoder(
        bottleneck,
        image_shape,
        config.architecture,
        config.likelihood,
        latent_predictor=latent_predictor,
        latents_per_position=config.latents_per_position,
    )


def make_predictor(config, bottleneck, code_shape, num_classes):
    sizes = SIZES[config.architecture]
    sizes = {
        "num_layers": config.predictor_layers,
        "hidden_dim": config.predictor_dim,
        "num_heads": sizes.predictor_heads,
        "block_length": sizes.predictor_block,
        "dropout": sizes.predictor_dropout,
    }
    num_classes = num_classes if config.class_conditional else None
    return prior.make(config.prior, code_shape, bottleneck.num_codes, bottleneck.num_codebooks, sizes, num_classes)


def train(config, model, data):
    """The autoencoder, and the predictor with it or after it; returns the model with its predictor."""

    def batches(start_step, conditional=bool(model.num_classes)):
        classes = data.train_classes if conditional else None
        return training_batches(data.train, config.batch_size, config.seed, start_step, config.flip, classes)

    examples = spread(data.test, 16)

    def pictures():
        return {"reconstructions": reconstructions(model, examples)}

    history = fit(
        model,
        batches,
        config.steps,
        config.run_dir,
        config.interval,
        callbacks=[
            *watches(model.bottleneck),
            ConsoleProgress(config.steps, config.batch_size, ("bits_per_dim", "codes_in_use"), name="autoencoder"),
            TensorBoardLog(config.run_dir / "tensorboard", pictures),
        ],
    )
    plots.learning_curves(config.run_dir / "curves.png", {config.run_dir.name: history})
    if config.predictor != "after":
        return model

    def codes(start_step):
        return prior.codes_of(model, batches(start_step, config.class_conditional))

    predictor = make_predictor(config, model.bottleneck, model.code_shape, data.num_classes)
    after = dataclasses.replace(config, steps=config.predictor_steps)
    prior.train(predictor, codes, after, config.run_dir / "predictor", f"{config.run_dir.name}, predictor")
    return model.with_latent_predictor(predictor)


def watches(bottleneck):
    """The callbacks that end a training of this bottleneck where going on is pointless, and warn before."""
    if not bottleneck.has_codes:
        return [StopOnFailure()]
    return [StopOnFailure(num_codes=bottleneck.num_codes * bottleneck.num_codebooks), WarnOfDyingCodes()]


def spread(images: np.ndarray, count: int) -> np.ndarray:
    """So many images from all over a set: neighbouring frames of a video would be nearly the same."""
    return images[np.linspace(0, len(images) - 1, min(count, len(images)), dtype=int)]


def reconstructions(model, images):
    decoded = keras.ops.convert_to_numpy(model.reconstruct(images))
    return plots.reconstruction_grid(images, decoded, scale=plots.scale_of(images))


def load(run_dir):
    """The trained image autoencoder of a run.

    Raises:
        InputError: as `runs.load_model`; where the run's model is another one.
    """
    wrong = InputError(f"{run_dir} is no run of an image autoencoder; give one of train_cifar.py or train_prior.py.")
    if "vocabulary" in runs.load_config(run_dir):  # Known before a translator is loaded, which takes a while.
        raise wrong
    model = runs.load_model(run_dir)
    if not isinstance(model, ImageAutoencoder):
        raise wrong
    return model


def check_codes(model, run_dir):
    """Raises an `InputError` where the image autoencoder of a run has no codes."""
    if not model.bottleneck.has_codes:
        raise InputError(f"{run_dir} has no codes; give the run of an autoencoder with a discrete bottleneck.")


def check_shape(model, data):
    """Raises an `InputError` for images of another shape than the model's."""
    if data.image_shape != model.image_shape:
        raise InputError(f"the run's images are {model.image_shape}, but those of {data.name} are {data.image_shape}.")


def figures(model, data, batch_size, path):
    """Scores a model on the test images, prints the table and writes it to a file; returns the figures."""

    def batches(images, classes):
        return test_batches(images, batch_size, classes if model.num_classes else None)

    unigram = None
    if model.bottleneck.has_codes:
        unigram = evaluation.fit_unigram(model, batches(data.train, data.train_classes))
    metrics = evaluation.evaluate(model, batches(data.test, data.test_classes), unigram)
    evaluation.write_json(metrics, path)
    Console().print(evaluation.table(metrics))
    return metrics


def report(config, model, data):
    """The table, metrics.json and the pictures; returns the figures."""
    metrics = figures(model, data, config.batch_size, config.run_dir / runs.METRICS)
    plots.save_png(config.run_dir / "reconstructions.png", reconstructions(model, spread(data.test, 32)))
    if model.latent_predictor is not None:
        plots.save_png(config.run_dir / "samples.png", samples(model, config.seed))
    print(f"model, pictures, metrics.json and TensorBoard logs: {config.run_dir}")
    return metrics


def samples(model, seed):
    """Rows of eight images drawn from the model: eight rows, or with classes one for each of the first ten."""
    rows, context = 8, {}
    if model.num_classes:
        rows = min(model.num_classes, 10)
        context["classes"] = np.repeat(np.arange(rows, dtype="int32"), 8)
    uniforms = np.random.default_rng(seed).random((8 * rows, math.prod(model.code_shape)), dtype="float32")
    images = keras.ops.convert_to_numpy(model.decode(model.latent_predictor.generate(uniforms, **context)))
    return plots.image_grid(images, columns=8, scale=plots.scale_of(images))


def run(config):
    """Trains, evaluates and samples what an `ImageConfig` describes; returns the figures."""
    config = resolve(config)
    keras.config.set_dtype_policy(config.precision)
    make_deterministic(config.seed)
    bottleneck = make_bottleneck(config)  # Before the data: wrong numbers are reported at once.
    data = images.load(config.dataset, config.data_dir, config.image_size)
    prior.check_classes(data, config.class_conditional)
    model = make_model(config, data.image_shape, bottleneck, data.num_classes)
    model.compile(optimizer=adam(config))
    # The folder is made when nothing is left that could be wrong with the configuration.
    runs.claim(config.run_dir, config.decisive())
    model = train(config, model, data)
    runs.save_model(model, config.run_dir)
    return report(config, model, data)
