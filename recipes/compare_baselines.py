"""Trains the models of images that oord2017 compares, on equal terms, and prints their likelihoods as one table."""

import dataclasses
import json
import os
import sys
from pathlib import Path

import tyro

from vq_keras.errors import InputError, run_command
from vq_keras.training.image_config import ImageConfig
from vq_keras.training.prior_config import PriorConfig

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Without it TensorFlow's notices hide the progress.

# Their bits/dim in oord2017 section 4.1, and of an Image Transformer on pixels in roy2018 table 2.
PAPER = {
    "gaussian": ("VAE", 4.51),
    "vector_quantizer": ("VQ-VAE", 4.67),
    "categorical_samples": ("VIMCO, categorical", 5.14),
    "gaussian_samples": ("VIMCO, Gaussian", 5.14),
    "pixel_cnn": ("PixelCNN on pixels", None),
    "image_transformer": ("Image Transformer on pixels", 2.92),
}
PIXELS = ("pixel_cnn", "image_transformer")


@dataclasses.dataclass(frozen=True)
class Config:
    """Train each model with the same encoder, decoder, likelihood, data order, steps and batch size, and compare.

    A VAE, a VQ-VAE and VIMCO with independent Gaussian or categorical priors, all with the prior that they have while
    they are trained: "all reported likelihoods are lower bounds" (oord2017 section 4.1). Beside them, to know what is
    possible, autoregressive models of the pixels themselves, whose likelihood is exact.

    Each is a run in a folder of its own, as of recipes/train_cifar.py or train_pixels.py; the same command again
    continues what was interrupted. The folder also gets table.json and curves.png.
    """

    models: tuple[str, ...] = tuple(PAPER)
    """Which: gaussian, vector_quantizer, categorical_samples, gaussian_samples; pixel_cnn, image_transformer."""
    dataset: str = "cifar10"
    """Images, as for recipes/train_cifar.py."""
    data_dir: Path | None = None
    """Where they are."""
    image_size: int | None = None
    """Height and width that they are brought to, in pixels."""
    run_dir: Path = Path("runs/baselines")
    """Where the runs' folders are made."""
    architecture: str = "small"
    """Encoder and decoder: small (for two CPU cores), oord2017, roy2018."""
    likelihood: str = "categorical"
    """p(image | latents): categorical, logistic_mixture, gaussian, mse."""
    num_samples: int = 50
    """Draws of VIMCO, each of which is decoded."""
    steps: int = 5000
    """Training steps of each."""
    batch_size: int = 32
    """Images in a step."""
    seed: int = 0
    """Of weights, data order, augmentation and draws."""
    interval: int = 100
    """Steps from one row of history and checkpoint to the next."""


def train(name, config):
    """The figures of one model."""
    fields = ("dataset", "data_dir", "image_size", "steps", "batch_size", "seed", "interval")
    shared = {field: getattr(config, field) for field in fields} | {"run_dir": config.run_dir / name}
    if name in PIXELS:
        from vq_keras.training import pixels

        return pixels.run(PriorConfig(prior=name, **shared))
    from vq_keras.training import image

    arguments = {"num_samples": config.num_samples} if name.endswith("_samples") else {}
    return image.run(
        ImageConfig(
            bottleneck=name,
            architecture=config.architecture,
            likelihood=config.likelihood,
            predictor="none",
            **shared,
            **arguments,
        )
    )


def row(figures):
    """bits/dim of a model and its two terms, where it has them; whichever the mode of its likelihood is called."""
    modes = (("exact", None), ("bound", "latents"), ("strict", "codes"))
    mode, latents = next(pair for pair in modes if f"{pair[0]}_bits_per_dim" in figures)
    terms = (figures.get(f"{mode}_bits_per_dim_reconstruction"), figures.get(f"{mode}_bits_per_dim_{latents}"))
    total = figures[f"{mode}_bits_per_dim"]
    return {"bits_per_dim": total, "reconstruction": terms[0], "latents": terms[1], "psnr": figures.get("psnr")}


def compare(config):
    unknown = [name for name in config.models if name not in PAPER]
    if unknown or not config.models:
        raise InputError(f"--models is {' '.join(config.models)!r}; give some of {', '.join(PAPER)}.")
    import keras
    from rich.console import Console
    from rich.table import Table

    from vq_keras import plots
    from vq_keras.training import runs
    from vq_keras.training.files import replace_file

    rows = {}
    for name in config.models:
        rows[name] = row(train(name, config))
        keras.backend.clear_session()
    replace_file(config.run_dir / "table.json", (json.dumps(rows, indent=2) + "\n").encode())
    plots.learning_curves(
        config.run_dir / "curves.png", {name: runs.load_history(config.run_dir / name) for name in rows}
    )
    table = Table("model", "bits/dim", "reconstruction", "latents", "PSNR, dB", "the paper's bits/dim")
    for name, figures in rows.items():
        label, paper = PAPER[name]
        cells = ["" if value is None else f"{value:.3f}" for value in figures.values()]
        table.add_row(label, *cells, "" if paper is None else f"{paper:.2f}")
    Console().print(table)
    return rows


def main(argv=None):
    return run_command(compare, tyro.cli(Config, args=argv))


if __name__ == "__main__":
    sys.exit(main())
