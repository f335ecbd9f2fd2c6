"""A run's folder without what only its training needed, and with weights of half the size."""

import os
import tempfile
import zipfile
from pathlib import Path

import h5py
import numpy as np

from vq_keras.data.vocabulary import FILE
from vq_keras.errors import InputError
from vq_keras.training import runs
from vq_keras.training.files import replace_file

_WEIGHTS = "model.weights.h5"


def write(run, folder) -> Path:
    """Writes a translator's run as a preset: configuration, vocabulary, figures, and the model's weights in float16.

    The folder loads as the run does, into weights of the model's own precision. Optimizer, checkpoints and logs stay
    behind. A weight beyond the range of float16 (65,504) stays in float32, as sums of a codebook's statistics may be.

    Args:
        run: the folder of a finished run.
        folder: the folder to write, which must not exist yet.

    Returns:
        the folder.

    Raises:
        InputError: as `runs.load_translator`; or the folder exists.

    Example:
        >>> write("runs/files-small", "vq_keras/presets/multi30k-en-de-teacher")
    """
    folder, run = Path(folder), runs.find(run)
    if folder.exists():
        raise InputError(f"{folder} exists already; give a folder that does not.")
    model, vocabulary, _ = runs.load_translator(run)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        aside = Path(temporary) / folder.name
        for name in (runs.CONFIG, "metrics.json"):
            if (run / name).exists():
                replace_file(aside / name, (run / name).read_bytes())
        vocabulary.save(aside / FILE)
        whole = Path(temporary) / runs.MODEL
        model.save(whole)
        _halve(whole, aside / runs.MODEL, Path(temporary))
        os.rename(aside, folder)
    return folder


def _halve(source: Path, target: Path, temporary: Path) -> None:
    """Copies a `.keras` file with its weights in float16."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            if name == _WEIGHTS:
                old.extract(name, temporary)
                halved = temporary / f"half.{name}"
                with h5py.File(temporary / name) as one, h5py.File(halved, "w") as other:
                    _copy(one, other)
                new.write(halved, name)
            else:
                new.writestr(name, old.read(name))


def _copy(source, target) -> None:
    for name, value in source.attrs.items():
        target.attrs[name] = value
    for name, item in source.items():
        if isinstance(item, h5py.Group):
            _copy(item, target.create_group(name))
            continue
        values = item[()]
        if values.dtype == np.float32 and np.all(np.abs(values) <= np.finfo(np.float16).max):
            values = values.astype(np.float16)
        copied = target.create_dataset(name, data=values)
        for key, value in item.attrs.items():
            copied.attrs[key] = value
