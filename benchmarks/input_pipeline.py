"""How long does a training step wait for its images?

    python benchmarks/input_pipeline.py --step-ms 20 --json input_pipeline.json

Measures `vq_keras.data.training_batches` over as many images as CIFAR-10 has, twice: alone, as fast as it goes, and
feeding a simulated training step, matrix products on all cores, which the pipeline must share with it as it
would with a training step on the CPU.
"""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Iterable

import keras
import numpy as np
import rich.console
import rich.table
import tyro

from vq_keras.data import training_batches

_NUM_IMAGES = 50_000
_WARM_UP_STEPS = 10


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures the share of a training step that is spent waiting for images."""

    batch_size: tuple[int, ...] = (32, 128)
    """Batch sizes to measure."""
    step_ms: float = 20.0
    """Length of the simulated training step in milliseconds."""
    steps: int = 200
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


def simulated_step(milliseconds: float) -> Callable[[dict], object]:
    """Work of about this length on an otherwise idle machine: as many matrix products as fit into it."""
    matrix = np.random.default_rng(0).random((512, 512), np.float32)
    products, start = 0, time.perf_counter()
    while products < 10 or time.perf_counter() - start < 0.5:
        matrix @ matrix
        products += 1
    number = max(1, round(milliseconds / 1e3 / (time.perf_counter() - start) * products))

    def step(batch):
        for _ in range(number):
            matrix @ matrix

    return step


def main(arguments: Arguments) -> None:
    images = np.random.default_rng(0).integers(0, 256, (_NUM_IMAGES, 32, 32, 3), np.uint8)
    step = simulated_step(arguments.step_ms)
    rows = []
    for batch_size in arguments.batch_size:
        alone = throughput(training_batches(images, batch_size, seed=0), arguments.steps)
        fed = waiting(training_batches(images, batch_size, seed=0), step, arguments.steps)
        rows.append({"batch_size": batch_size, "images_per_second_alone": alone, **fed})

    columns = ("batch size", "images/s alone", "step, ms", "wait, ms", "waiting")
    table = rich.table.Table(*columns, title=f"Input pipeline, {_NUM_IMAGES:,} images, {keras.backend.backend()}")
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
    rich.console.Console().print(table)
    if arguments.json:
        report = {"backend": keras.backend.backend(), "num_images": _NUM_IMAGES, "results": rows}
        partial = arguments.json.with_name(arguments.json.name + ".partial")
        partial.write_text(json.dumps(report, indent=2) + "\n")
        partial.replace(arguments.json)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
