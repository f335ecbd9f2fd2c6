"""The options of data that every recipe of images has; light to import, so that --help is quick."""

import dataclasses
from pathlib import Path
from typing import Self


@dataclasses.dataclass(frozen=True)
class ImageDataConfig:
    """Which images to train on, and where the run is kept."""

    dataset: str | None = None
    """Images, as for recipes/train_cifar.py."""
    data_dir: str | None = None
    """Where they are: a TFDS data directory, a folder of images or Parquet files, or an .npz file."""
    image_size: int | None = None
    """Height and width that they are brought to, in pixels."""
    run_dir: Path | None = None
    """The run's folder."""
    batch_size: int = 32
    """Images in a step."""

    def with_data_of(self, run_dir: Path) -> Self:
        """The same with the data set and the image size of another run, where this one says none.

        Raises:
            InputError: where the other is no run.
        """
        from vq_keras.training import runs

        settings = runs.load_config(run_dir)
        given = {name: getattr(self, name) or settings.get(name) for name in ("dataset", "image_size")}
        return dataclasses.replace(self, **given)
