"""How long does a training step wait for its images?

    python benchmarks/input_pipeline.py --batch-size 16 128 --json input_pipeline.json

Measures `vq_keras.data.training_batches` over as many images as CIFAR-10 has, twice: alone, as fast as it goes, and
feeding the training step of a real model, with which it shares the cores where there is no accelerator. The first
figure tells what an accelerator can be fed.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterable

import keras
import numpy as np
import rich.table
import tyro
from output import publish

from vq_keras.bottlenecks import VectorQuantizer
from vq_keras.data import training_batches
from vq_keras.models.image import ImageAutoencoder

_NUM_IMAGES = 50_000
_WARM_UP_STEPS = 10


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures the share of a training step that is spent waiting for images."""

    batch_size: tuple[int, ...] = (16, 128)
    """Batch sizes to measure."""
    architecture: str = "small"
    """Of the model that is trained."""
    steps: int = 100
    """Steps to measure for each batch size."""
    json: pathlib.Path | None = None
    """A file for the numbers."""


def throughput(batches: Iterable[dict], num_batches: int) -> float:
    """Images a second that the pipeline gives when nobody keeps it waiting."""
    iterator = iter(batches)
    for _ in range(_WARM_UP_STEPS):
        batch_size = len(next(iterator)["images"])
    start = time.perf_counter()
    for _ in range(num_batches):
        next(iterator)
    return num_batches * batch_size / (time.perf_counter() - start)


def waiting(batches: Iterable[dict], step: Callable[[dict], object], num_steps: int) -> dict[str, float]:
    """Runs `step` on each batch and times the waits between.

    Args:
        batches: the pipeline.
        step: a training step; must return only when it is done.
        num_steps: how many to time.

    Returns:
        Milliseconds: the median "wait_ms" and "step_ms"; and "share", all waits over all time.
    """
    iterator = iter(batches)
    for _ in range(_WARM_UP_STEPS):
        step(next(iterator))
    waits, steps = np.empty(num_steps), np.empty(num_steps)
    for i in range(num_steps):
        start = time.perf_counter()
        batch = next(iterator)
        waits[i] = time.perf_counter() - start
        step(batch)
        steps[i] = time.perf_counter() - start - waits[i]
    share = waits.sum() / (waits.sum() + steps.sum())
    return {"wait_ms": 1e3 * np.median(waits), "step_ms": 1e3 * np.median(steps), "share": share}


def training_step(architecture: str) -> Callable[[dict], object]:
    """A whole step of the autoencoder, forward, backward and update, as `recipes/train_cifar.py` runs it."""
    model = ImageAutoencoder(VectorQuantizer(256), (32, 32, 3), architecture, "logistic_mixture")
    model.compile("adam")
    return model.train_on_batch  # It returns the loss as a number, so that the step is done.


def main(arguments: Arguments) -> None:
    images = np.random.default_rng(0).integers(0, 256, (_NUM_IMAGES, 32, 32, 3), np.uint8)
    rows = []
    for batch_size in arguments.batch_size:
        step = training_step(arguments.architecture)
        alone = throughput(training_batches(images, batch_size, seed=0), arguments.steps)
        fed = waiting(training_batches(images, batch_size, seed=0), step, arguments.steps)
        rows.append({"batch_size": batch_size, "images_per_second_alone": alone, **fed})

    columns = ("batch size", "images/s alone", "step, ms", "wait, ms", "waiting")
    table = rich.table.Table(
        *columns, title=f"Input pipeline, {_NUM_IMAGES:,} images, {arguments.architecture}, {keras.backend.backend()}"
    )
    for column in table.columns:
        column.justify = "right"
    for row in rows:
        table.add_row(
            str(row["batch_size"]),
            f"{row['images_per_second_alone']:,.0f}",
            f"{row['step_ms']:.2f}",
            f"{row['wait_ms']:.3f}",
            f"{row['share']:.2%}",
        )
    report = {
        "backend": keras.backend.backend(),
        "architecture": arguments.architecture,
        "num_images": _NUM_IMAGES,
        "results": rows,
    }
    publish(report, arguments.json, table)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
