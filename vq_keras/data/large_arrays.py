"""Arrays that may be too large for the memory: then files of the user's cache, made once and mapped from there."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping

import numpy as np

from vq_keras.errors import InputError

# The rest of the memory is for the model, for batches and for other processes.
_SHARE_OF_MEMORY = 1 / 4


def filled(
    name: str,
    shapes: Mapping[str, tuple[tuple[int, ...], type]],
    fill: Callable[[dict[str, np.ndarray]], None],
) -> dict[str, np.ndarray]:
    """Arrays of these shapes with what `fill` puts into them.

    Up to a quarter of the machine's memory they are ordinary arrays. Larger ones are `.npy` files in a folder
    `vq_keras/NAME` of the cache (`$XDG_CACHE_HOME`, or ~/.cache), mapped read-only; where the folder is there, nothing
    is filled. It is written aside and renamed when whole. Of processes that want the same folder at the same time one
    fills it, while the others wait.

    Args:
        name: of the folder: another content needs another name.
        shapes: for each array its shape and numpy type.
        fill: is given the arrays by name, and puts the content into them.

    Returns:
        The arrays by name.

    Raises:
        InputError: the disk is too small, the cache cannot be written, or what is there is damaged.

    Example:
        >>> filled("ones", {"ones": ((2,), np.int32)}, lambda arrays: arrays["ones"].fill(1))
        {'ones': array([1, 1], dtype=int32)}
    """
    import psutil  # TensorFlow Datasets, whose large sets this is for, comes with it.

    size = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in shapes.values())
    if size <= psutil.virtual_memory().total * _SHARE_OF_MEMORY:
        arrays = {array: np.empty(shape, dtype) for array, (shape, dtype) in shapes.items()}
        fill(arrays)
        return arrays

    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "vq_keras"
    folder = cache / name
    try:
        if not folder.exists():
            cache.mkdir(parents=True, exist_ok=True)
            with _alone(cache / f".{name}.lock"):
                if not folder.exists():  # Another process may have made it while this one waited.
                    _write(folder, shapes, fill, size)
    except OSError as error:
        raise InputError(f"Cannot write {folder}: {error.strerror}.") from error
    try:
        return {array: np.load(folder / f"{array}.npy", mmap_mode="r") for array in shapes}
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{folder} is damaged ({error}): remove it, and it is made again.") from error


@contextlib.contextmanager
def _alone(path: pathlib.Path):
    """Waits until no other process is in here."""
    import fcntl  # Not on Windows.

    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # Ends with the process, however that ends.
        yield


def _write(folder: pathlib.Path, shapes: Mapping, fill: Callable, size: int) -> None:
    aside = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(aside, ignore_errors=True)  # A killed process left it.
    free = shutil.disk_usage(folder.parent).free
    if size > free:
        raise InputError(
            f"{folder} would take {size / 1e9:.1f} GB, of which {free / 1e9:.1f} are free: choose a smaller "
            "--image-size, make room, or set XDG_CACHE_HOME to a folder on a larger disk."
        )
    aside.mkdir()
    try:
        arrays = {
            array: np.lib.format.open_memmap(aside / f"{array}.npy", "w+", dtype, shape)
            for array, (shape, dtype) in shapes.items()
        }
        fill(arrays)
        for array in arrays.values():
            array.flush()
        os.replace(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
