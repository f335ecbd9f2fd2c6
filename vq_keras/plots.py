"""Pictures of a run: grids of images, reconstructions beside their originals, learning curves."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont

from vq_keras.errors import InputError
from vq_keras.training.files import replace_file

PAPER = 255
CURVES = {
    "loss": "loss",
    "bits_per_dim": "bits/dim",
    "bits_per_image": "bits an image",
    "val_nll": "nats a token, validation",
    "nll_z": "nats a code",
    "codes_in_use": "codes in use",
    "perplexity": "perplexity of the codes",
}


def image_grid(images: np.ndarray, columns: int, scale: int = 1) -> np.ndarray:
    """Lays images out in rows from the top left, with white lines around and between them.

    Args:
        images: uint8 `(n, height, width, channels)` with 1 or 3 channels.
        columns: images in a row; the last row may be shorter and is filled with white.
        scale: a whole number; each pixel becomes a square of `scale` x `scale`.

    Returns:
        uint8 `(rows * (scale * height + 2) + 2, columns * (scale * width + 2) + 2, channels)`.

    Raises:
        InputError: the images are not as above, or there are none; columns or scale are below 1.

    Example:
        >>> image_grid(np.zeros((10, 32, 32, 3), "uint8"), columns=4, scale=2).shape
        (200, 266, 3)
    """
    _check_images(images)
    if columns < 1 or scale < 1:
        raise InputError(f"Columns and scale of a grid must be at least 1, not {columns} and {scale}.")
    line = 2
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    cells = np.full((rows * columns, height + line, width + line, channels), PAPER, "uint8")
    cells[:count, line:, line:] = images
    grid = cells.reshape(rows, columns, height + line, width + line, channels).swapaxes(1, 2)
    grid = grid.reshape(rows * (height + line), columns * (width + line), channels)
    return np.pad(grid, ((0, line), (0, line), (0, 0)), constant_values=PAPER)


def scale_of(images: np.ndarray) -> int:
    """The scale at which images of this size are about 96 pixels high, or at 1 more.

    Example:
        >>> scale_of(np.zeros((10, 32, 32, 3), "uint8"))
        3
    """
    return max(1, 96 // images.shape[1])


def reconstruction_grid(
    originals: np.ndarray, reconstructions: np.ndarray, columns: int = 8, scale: int = 3
) -> np.ndarray:
    """Puts each row of originals right above the row of their reconstructions, with the names at the left.

    Args:
        originals: uint8 `(n, height, width, channels)` with 1 or 3 channels.
        reconstructions: the same shape, in the same order.
        columns: pairs in a row.
        scale: a whole number; each pixel becomes a square of `scale` x `scale`.

    Returns:
        uint8 `(picture height, picture width, channels)`.

    Raises:
        InputError: as for `image_grid`; or the two differ in shape.
    """
    if originals.shape != reconstructions.shape:
        raise InputError(
            f"Originals and reconstructions must have one shape, not {originals.shape} and {reconstructions.shape}."
        )
    return comparison_grid({"original": originals, "reconstruction": reconstructions}, columns, scale)


def comparison_grid(images: Mapping[str, np.ndarray], columns: int = 8, scale: int = 3) -> np.ndarray:
    """Puts rows of images below each other that are versions of the same, with the names of the versions at the left.

    Args:
        images: by the name of the version uint8 `(n, height, width, channels)` with 1 or 3 channels, in the same order
            and of one shape.
        columns: images in a row.
        scale: a whole number; each pixel becomes a square of `scale` x `scale`.

    Returns:
        uint8 `(picture height, picture width, channels)`.

    Raises:
        InputError: as for `image_grid`.

    Example:
        >>> noise = np.random.default_rng(0).integers(0, 256, (2, 8, 32, 32, 3), "uint8")
        >>> picture = comparison_grid({"one": noise[0], "other": noise[1]})
    """
    for version in images.values():
        _check_images(version)
    gap = 6
    count = len(next(iter(images.values())))
    bands = []
    for start in range(0, count, columns):
        for name, version in images.items():
            grid = image_grid(version[start : start + columns], min(columns, count), scale)
            bands.append(np.concatenate([_label(name, *grid.shape[::2]), grid], axis=1))
        bands.append(np.full((gap, *bands[-1].shape[1:]), PAPER, "uint8"))
    return np.concatenate(bands[:-1])


def save_png(path: str | Path, picture: np.ndarray) -> None:
    """Writes a uint8 `(height, width, channels)` picture with 1 or 3 channels as a PNG file, whole or not at all."""
    file = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(file, "PNG")
    replace_file(path, file.getvalue())


def save_grid(path: str | Path, images: np.ndarray, columns: int, scale: int = 3) -> None:
    """Writes `image_grid(images, columns, scale)` as a PNG file.

    Example:
        >>> save_grid("/tmp/vq_keras_example/samples.png", np.zeros((16, 32, 32, 3), "uint8"), columns=8)
    """
    save_png(path, image_grid(images, columns, scale))


def learning_curves(path: str | Path, histories: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Draws the metrics of `CURVES` against the step, each in a panel of its own, as a PNG file.

    Args:
        path: the file to write.
        histories: by the name of the run what `vq_keras.training.fit.fit` returns: a dictionary for each interval,
            with "step" and metrics. Metrics that no run has get no panel. The name of one run stands above the panels,
            those of several are told apart by their colours.

    Raises:
        InputError: the histories have none of these metrics.

    Example:
        >>> learning_curves("/tmp/vq_keras_example/curves.png", {"run": [{"step": 10, "loss": 3.0}]})
    """
    names = [name for name in CURVES if any(name in row for rows in histories.values() for row in rows)]
    if not names:
        raise InputError(f"The history has none of the metrics that can be drawn: {', '.join(CURVES)}.")
    columns = len(names) if len(names) < 4 else 2 if len(names) == 4 else 3
    num_rows = -(-len(names) // columns)
    figure = Figure(figsize=(4.5 * columns, 3 * num_rows), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for index, name in enumerate(names):
        axes = figure.add_subplot(num_rows, columns, index + 1)
        title = CURVES[name]
        for number, (run, history) in enumerate(histories.items()):
            steps, values = (
                [row["step"] for row in history if name in row],
                [row[name] for row in history if name in row],
            )
            # A history of one row is a point, which a line alone would not show.
            marker = "o" if len(steps) == 1 else None
            axes.plot(steps, values, color=f"C{number}", linewidth=1.5, marker=marker, label=run)
            if len(histories) == 1:
                title += f": {values[-1]:.4g} at the end"
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("step")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
        if name in ("codes_in_use", "perplexity"):
            axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    if len(histories) == 1:
        figure.suptitle(*histories)
    else:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    replace_file(path, file.getvalue())


def quality_against_latency(path: str | Path, figures: Mapping[str, Mapping[str, float]]) -> None:
    """Draws translators as points, BLEU over the median latency of a sentence, as a PNG file.

    Args:
        path: the file to write.
        figures: for each translator by name "bleu" and "median_ms".

    Raises:
        InputError: there are no figures.
    """
    if not figures:
        raise InputError("There are no figures to draw.")
    figure = Figure(figsize=(8, 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, row in figures.items():
        axes.plot(row["median_ms"], row["bleu"], "o", label=name)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel("median latency of a sentence alone, ms")
    axes.set_ylabel("BLEU")
    axes.grid(alpha=0.3, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    replace_file(path, file.getvalue())


def _check_images(images: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3) or not images.size:
        raise InputError(
            "A grid takes uint8 images of shape (n, height, width, channels) with 1 or 3 channels, "
            f"not {images.dtype} of shape {images.shape}."
        )


def _label(text: str, height: int, channels: int) -> np.ndarray:
    """Black letters on a white strip of the given height, at its right edge and half-way up."""
    font = ImageFont.load_default(size=13)
    # One width for all labels, or the rows below each other would not be in line.
    width = round(font.getlength("reconstruction")) + 12
    strip = Image.new("L", (width, height), PAPER)
    ImageDraw.Draw(strip).text((width - 6, height / 2), text, fill=0, font=font, anchor="rm")
    return np.repeat(np.asarray(strip)[..., None], channels, axis=2)
