"""Trains, evaluates and samples a discrete autoencoder of images with its latent predictor."""

import dataclasses
import os
import sys
from pathlib import Path

import tyro

from vq_keras.errors import InputError, run_command

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Without it TensorFlow's notices hide the progress.


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What goes with an architecture where the command line does not say."""

    num_codes: int
    temperature: float
    learning_rate: float
    predictor: str
    predictor_layers: int
    predictor_dim: int
    predictor_heads: int
    predictor_block: int
    predictor_dropout: float


# oord2017: Adam at 2e-4, 512 codes, the prior afterwards. roy2018: 256 codes, a joint predictor of 6 layers. Squared
# distances grow with the dimensions of a latent: temperatures are as sharp as roy2018's 1 is for its 512.
SIZES = {
    "small": Sizes(256, 8 / 512, 2e-3, "joint", 3, 64, 2, 64, 0.0),
    "oord2017": Sizes(512, 64 / 512, 2e-4, "after", 6, 512, 8, 256, 0.1),
    "roy2018": Sizes(256, 1.0, 5e-4, "joint", 6, 512, 8, 256, 0.1),
}
# oord2017 section 4.1 trains VIMCO with 50 samples; roy2018 soft EM on images with 5.
NUM_SAMPLES = {"categorical_samples": 50, "gaussian_samples": 50}
CHOICES = {
    "codebooks": ("shared", "separate"),
    "predictor": ("joint", "after", "none"),
    "prior": ("image_transformer", "pixel_cnn"),
    "precision": ("float32", "mixed_bfloat16", "mixed_float16"),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Train, evaluate and sample a discrete autoencoder of images.

    Writes the run's folder: model.keras, metrics.json, history.csv, reconstructions.png, samples.png, curves.png,
    TensorBoard logs and checkpoints. The same command again continues a run that was interrupted.
    """

    dataset: str = "cifar10"
    """Images: cifar10 (through TensorFlow Datasets), photos (crops of scikit-image's photographs, no download),
    folder (image files), npz (arrays written by python -m vq_keras.data)."""
    data_dir: str | None = None
    """Where they are: a TFDS data directory, a folder of images, or an .npz file."""
    image_size: int | None = None
    """Height and width that the images of photos and folder are brought to, in pixels; 32 where not given."""
    run_dir: Path | None = None
    """The run's folder; runs/DATASET-ARCHITECTURE-BOTTLENECK where not given."""

    architecture: str = "small"
    """Encoder and decoder: small (for two CPU cores), oord2017, roy2018."""
    bottleneck: str = "vector_quantizer"
    """vector_quantizer (hard EM with --update ema), soft_em (Monte-Carlo EM), gumbel_softmax, semantic_hashing,
    product, residual, grouped_residual, finite_scalar, residual_finite_scalar, lookup_free, binary_spherical, sim_vq,
    cosine, random_projection; gaussian (VAE), categorical_samples and gaussian_samples (VIMCO)."""
    bottleneck_arguments: str = "{}"
    """More arguments of the bottleneck, as JSON: '{"num_stages": 4}' for residual."""
    update: str = "ema"
    """How vector_quantizer learns its codebook: ema or gradient."""
    num_codes: int | None = None
    """Codes in a codebook; by architecture: 256, oord2017 512."""
    codebooks: str = "shared"
    """shared (one for all latents) or separate (one for each of the ten latents of a position)."""
    num_samples: int | None = None
    """Draws for each latent; soft_em 5, categorical_samples and gaussian_samples 50, each of which is decoded: a step
    takes the memory and time of so many batches."""
    temperature: float | None = None
    """Of soft_em's draws; by architecture: roy2018 1, oord2017 1/8, small 1/64."""
    decay: float | None = None
    """Of the codebook's moving averages (vector_quantizer and soft_em); by the numbers of latents and codes where not
    given."""
    commitment_weight: float = 0.25
    """Weight of the commitment loss (vector_quantizer and soft_em)."""
    likelihood: str = "categorical"
    """p(image | codes): categorical (256 grey levels), logistic_mixture, gaussian, mse."""

    predictor: str | None = None
    """Latent predictor: joint (trained with the autoencoder), after (on its frozen codes), none; by architecture, and
    none for gaussian and gaussian_samples, which have no codes."""
    prior: str = "image_transformer"
    """What it is: image_transformer or pixel_cnn (gated PixelCNN, oord2017's)."""
    predictor_layers: int | None = None
    """Its layers; by architecture: small 3, others 6."""
    predictor_dim: int | None = None
    """Its width; by architecture: small 64, others 512."""
    predictor_steps: int | None = None
    """Steps of training it with --predictor after; --steps where not given."""

    steps: int = 5000
    """Training steps."""
    batch_size: int = 32
    """Images in a step."""
    learning_rate: float | None = None
    """Peak of Adam's learning rate; by architecture: small 2e-3, oord2017 2e-4, roy2018 5e-4."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises to its peak."""
    schedule: str = "exponential"
    """What follows: exponential (to a tenth at the end of the run) or rsqrt (inverse square root of the step)."""
    precision: str = "float32"
    """float32, mixed_bfloat16 or mixed_float16."""
    flip: bool = True
    """Mirror every other training image."""
    seed: int = 0
    """Of weights, data order, augmentation and draws."""
    interval: int = 100
    """Steps from one row of history and checkpoint to the next."""


def resolve(config):
    """The configuration with everything filled in that depends on other choices.

    Raises:
        InputError: for an unknown name or a number outside its range.
    """
    from vq_keras import bottlenecks
    from vq_keras.models import architectures

    architectures.get(config.architecture)
    sizes = dataclasses.asdict(SIZES[config.architecture])
    sizes["run_dir"] = Path("runs") / f"{config.dataset}-{config.architecture}-{config.bottleneck}"
    sizes["predictor_steps"] = config.steps
    sizes["num_samples"] = NUM_SAMPLES.get(config.bottleneck, 5)
    if config.bottleneck in bottlenecks.CONTINUOUS:
        sizes["predictor"] = "none"
    names = [field.name for field in dataclasses.fields(config)]
    config = dataclasses.replace(
        config, **{name: sizes[name] for name in names if name in sizes and getattr(config, name) is None}
    )
    for name, known in CHOICES.items():
        if getattr(config, name) not in known:
            raise InputError(f"--{name} is {getattr(config, name)!r}; give one of {', '.join(known)}.")
    if config.bottleneck in bottlenecks.CONTINUOUS and config.predictor != "none":
        raise InputError(f"--predictor is {config.predictor!r}, but {config.bottleneck} has no codes; leave it out.")
    for name in ("steps", "predictor_steps", "batch_size", "interval"):
        if getattr(config, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(config, name)}; give 1 or more.")
    return config


def make_bottleneck(config):
    from vq_keras.models import architectures
    from vq_keras.training import bottleneck_options

    options = dataclasses.asdict(config)
    if config.codebooks == "separate":
        options["num_codebooks"] = architectures.LATENTS_PER_POSITION
    return bottleneck_options.make_bottleneck(
        config.bottleneck,
        options,
        config.bottleneck_arguments,
        config.steps,
        architectures.get(config.architecture).latent_dim,
    )


def make_model(config, image_shape, bottleneck):
    from vq_keras.models import architectures
    from vq_keras.models.image import ImageAutoencoder

    code_shape = bottleneck.code_shape(architectures.get(config.architecture).code_shape(image_shape))
    return ImageAutoencoder(
        bottleneck,
        image_shape,
        config.architecture,
        config.likelihood,
        latent_predictor=make_predictor(config, bottleneck, code_shape) if config.predictor == "joint" else None,
    )


def make_predictor(config, bottleneck, code_shape):
    from vq_keras.priors import ImageTransformer, PixelCNN

    sizes = SIZES[config.architecture]
    if config.prior == "pixel_cnn":
        # Kernels of 5: three layers see all of an 8x8 field above a position.
        return PixelCNN(
            code_shape,
            bottleneck.num_codes,
            num_layers=config.predictor_layers,
            hidden_dim=config.predictor_dim,
            dropout=sizes.predictor_dropout,
            name="latent_predictor",
        )
    return ImageTransformer(
        code_shape,
        bottleneck.num_codes,
        num_codebooks=bottleneck.num_codebooks,
        num_layers=config.predictor_layers,
        hidden_dim=config.predictor_dim,
        num_heads=sizes.predictor_heads,
        feed_forward_dim=4 * config.predictor_dim,
        block_length=sizes.predictor_block,
        dropout=sizes.predictor_dropout,
        name="latent_predictor",
    )


def make_optimizer(config, steps):
    import keras

    from vq_keras.training.schedules import WarmupDecay

    warmup = min(config.warmup_steps, steps // 2)  # A short run still sees its peak.
    schedule = WarmupDecay(config.learning_rate, warmup, steps, config.schedule)
    # One step with an outlying gradient can throw an autoencoder into a state that it does not leave.
    return keras.optimizers.Adam(schedule, clipnorm=1.0)


def train(config, model, data):
    """The autoencoder, and the predictor with it or after it; returns the model with its predictor."""
    import keras

    from vq_keras import plots
    from vq_keras.data.batches import training_batches
    from vq_keras.training.callbacks import ConsoleProgress, StopOnFailure, TensorBoardLog, WarnOfDyingCodes
    from vq_keras.training.fit import fit

    def batches(start_step):
        return training_batches(data.train, config.batch_size, config.seed, start_step, flip=config.flip)

    def pictures():
        return {"reconstructions": reconstructions(model, data.test[:16])}

    watches = [StopOnFailure()]
    if model.bottleneck.has_codes:
        num_codes = model.bottleneck.num_codes * model.bottleneck.num_codebooks
        watches = [StopOnFailure(num_codes=num_codes), WarnOfDyingCodes()]
    history = fit(
        model,
        batches,
        config.steps,
        config.run_dir,
        config.interval,
        callbacks=[
            *watches,
            ConsoleProgress(config.steps, config.batch_size, ("bits_per_dim", "codes_in_use"), name="autoencoder"),
            TensorBoardLog(config.run_dir / "tensorboard", pictures),
        ],
    )
    plots.learning_curves(config.run_dir / "curves.png", {config.run_dir.name: history})
    if config.predictor != "after":
        return model

    encode = keras.Model(model.encoder.input, model.bottleneck(model.encoder.output)["codes"])

    def codes(start_step):
        for batch in batches(start_step):
            yield (encode.predict_on_batch(batch["images"]).reshape(config.batch_size, -1, 1),)

    predictor = make_predictor(config, model.bottleneck, model.code_shape)
    predictor.compile(optimizer=make_optimizer(config, config.predictor_steps))
    run_dir = config.run_dir / "predictor"
    history = fit(
        predictor,
        codes,
        config.predictor_steps,
        run_dir,
        config.interval,
        callbacks=[
            StopOnFailure(),
            ConsoleProgress(config.predictor_steps, config.batch_size, ("nll_z",), name="predictor"),
            TensorBoardLog(run_dir / "tensorboard"),
        ],
    )
    plots.learning_curves(run_dir / "curves.png", {f"{config.run_dir.name}, predictor": history})
    return model.with_latent_predictor(predictor)


def reconstructions(model, images):
    import keras

    from vq_keras import plots

    return plots.reconstruction_grid(images, keras.ops.convert_to_numpy(model.reconstruct(images)))


def report(config, model, data):
    """The table, metrics.json and the pictures."""
    import keras
    import numpy as np
    from rich.console import Console

    from vq_keras import evaluation, plots
    from vq_keras.data.batches import test_batches

    unigram = None
    if model.bottleneck.has_codes:
        unigram = evaluation.fit_unigram(model, test_batches(data.train, config.batch_size))
    metrics = evaluation.evaluate(model, test_batches(data.test, config.batch_size), unigram)
    evaluation.write_json(metrics, config.run_dir / "metrics.json")

    pictures = {"reconstructions": reconstructions(model, data.test[:32])}
    if model.latent_predictor is not None:
        shape = (64, int(np.prod(model.code_shape)))
        uniforms = np.random.default_rng(config.seed).random(shape, dtype="float32")
        samples = model.decode(model.latent_predictor.generate(uniforms))
        pictures["samples"] = plots.image_grid(keras.ops.convert_to_numpy(samples), columns=8, scale=3)
    for name, picture in pictures.items():
        plots.save_png(config.run_dir / f"{name}.png", picture)
    Console().print(evaluation.table(metrics))
    print(f"model, pictures, metrics.json and TensorBoard logs: {config.run_dir}")


def run(config):
    config = resolve(config)
    import keras

    from vq_keras.data import images
    from vq_keras.training import runs
    from vq_keras.training.fit import make_deterministic

    keras.config.set_dtype_policy(config.precision)
    make_deterministic(config.seed)
    bottleneck = make_bottleneck(config)  # Before the data: wrong numbers are reported at once.
    data = images.load(config.dataset, config.data_dir, config.image_size)
    model = make_model(config, data.image_shape, bottleneck)
    model.compile(optimizer=make_optimizer(config, config.steps))
    # The folder is made when nothing is left that could be wrong with the configuration.
    decisive = {
        name: value for name, value in dataclasses.asdict(config).items() if name not in ("run_dir", "data_dir")
    }
    runs.claim(config.run_dir, {**decisive, "backend": keras.backend.backend()})
    model = train(config, model, data)
    runs.save_model(model, config.run_dir)
    report(config, model, data)


def main(argv=None):
    return run_command(run, tyro.cli(Config, args=argv, description=Config.__doc__))


if __name__ == "__main__":
    sys.exit(main())
