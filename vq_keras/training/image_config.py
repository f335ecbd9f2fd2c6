"""The command line of image autoencoders; light to import, so that --help is quick."""

import dataclasses
from pathlib import Path
from typing import ClassVar

from vq_keras.errors import InputError
from vq_keras.training.image_data_config import ImageDataConfig
from vq_keras.training.training_config import TrainingConfig


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


@dataclasses.dataclass(frozen=True)
class ImageConfig(TrainingConfig, ImageDataConfig):
    """Train, evaluate and sample a discrete autoencoder of images.

    Writes the run's folder: model.keras, metrics.json, history.csv, reconstructions.png, samples.png, curves.png,
    TensorBoard logs and checkpoints. The same command again continues a run that was interrupted.
    """

    CHOICES: ClassVar = TrainingConfig.CHOICES | {
        "codebooks": ("shared", "separate"),
        "predictor": ("joint", "after", "none"),
        "prior": ("image_transformer", "pixel_cnn"),
    }
    COUNTS: ClassVar = (*TrainingConfig.COUNTS, "predictor_steps", "batch_size")

    dataset: str = "cifar10"
    """Images: cifar10, or any other set of TensorFlow Datasets as tfds:NAME[/CONFIG]; photos (crops of scikit-image's
    photographs, no download); folder (image files); episodes (video in Parquet files); npz (arrays written by python -m
    vq_keras.data)."""
    image_size: int | None = None
    """Height and width that images are brought to, in pixels; where not given 32 for photos and folder, and for others
    what they have."""
    run_dir: Path | None = None
    """The run's folder; runs/DATASET-ARCHITECTURE-BOTTLENECK where not given."""

    architecture: str = "small"
    """Encoder and decoder: small (for two CPU cores), oord2017, roy2018."""
    latents_per_position: int = 10
    """Latents at each position of the field, which has a quarter of the image's height and width: 10 (oord2017's
    CIFAR-10), 1 (its ImageNet and DM-Lab)."""
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
    """shared (one for all latents) or separate (one for each latent of a position)."""
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
    class_conditional: bool = False
    """Let it learn p(codes | class); of a data set with classes, by a pixel_cnn."""
    predictor_layers: int | None = None
    """Its layers; by architecture: small 3, others 6."""
    predictor_dim: int | None = None
    """Its width; by architecture: small 64, others 512."""
    predictor_steps: int | None = None
    """Steps of training it with --predictor after; --steps where not given."""

    steps: int = 5000
    """Training steps."""
    learning_rate: float | None = None
    """Peak of Adam's learning rate; by architecture: small 2e-3, oord2017 2e-4, roy2018 5e-4."""
    flip: bool = True
    """Mirror every other training image."""


def resolve(config):
    """The configuration with everything filled in that depends on other choices.

    Raises:
        InputError: for an unknown name or a number outside its range.
    """
    from vq_keras import bottlenecks
    from vq_keras.models import architectures

    architectures.get(config.architecture, config.latents_per_position)
    sizes = dataclasses.asdict(SIZES[config.architecture])
    dataset = config.dataset.replace(":", "-").replace("/", "-")
    sizes["run_dir"] = Path("runs") / f"{dataset}-{config.architecture}-{config.bottleneck}"
    sizes["predictor_steps"] = config.steps
    sizes["num_samples"] = NUM_SAMPLES.get(config.bottleneck, 5)
    if config.bottleneck in bottlenecks.CONTINUOUS:
        sizes["predictor"] = "none"
    names = [field.name for field in dataclasses.fields(config)]
    config = dataclasses.replace(
        config, **{name: sizes[name] for name in names if name in sizes and getattr(config, name) is None}
    )
    config.check()
    if config.class_conditional and (config.prior != "pixel_cnn" or config.predictor == "none"):
        raise InputError("--class-conditional needs a latent predictor, and that --prior pixel_cnn.")
    if config.bottleneck in bottlenecks.CONTINUOUS and config.predictor != "none":
        raise InputError(f"--predictor is {config.predictor!r}, but {config.bottleneck} has no codes; leave it out.")
    return config
