"""Episodes of video under known actions, in Parquet files, a row an episode.

The column `frames` is a struct whose field `bytes` is one image file, best a lossless WebP, that holds an episode's
square frames one below the other. The column `action` is a list of as many integers: action t follows frame t.
"""

import concurrent.futures
import dataclasses
import io
import os
import pathlib

import numpy as np
from PIL import Image

from vq_keras.data import decoding
from vq_keras.data.image_data import ImageData
from vq_keras.errors import InputError

_PARTS = ("train", "test")
_COLUMNS = ["frames", "action"]


@dataclasses.dataclass(frozen=True, eq=False)
class Episodes:
    """Episodes of one length.

    Args:
        frames: uint8 (num_episodes, time, height, width, 3).
        actions: int32 (num_episodes, time).
    """

    frames: np.ndarray
    actions: np.ndarray


def load(data_dir: str | os.PathLike | None, image_size: int | None = None) -> ImageData:
    """The source "episodes" of `vq_keras.data.load`: all frames of `train.parquet` and `test.parquet` as images.

    Args:
        data_dir: the folder of the two files, as `read` takes them.
        image_size: height and width that the frames are brought to, in pixels; None keeps those they have.

    Returns:
        The images, uint8 (num_episodes * time, image_size, image_size, 3), in the order of the files.

    Raises:
        InputError: no folder was given, or as `read`.
    """
    if data_dir is None:
        raise InputError("The data set 'episodes' needs the folder of its files as the data directory (--data-dir).")
    # Both are opened before either is decoded, so that a missing one is told at once.
    files = [_open(data_dir, part) for part in _PARTS]
    parts = [_read(file, path, image_size).frames for file, path in files]
    return ImageData(str(data_dir), *(frames.reshape(-1, *frames.shape[2:]) for frames in parts))


def read(data_dir: str | os.PathLike, part: str, image_size: int | None = None) -> Episodes:
    """The episodes of one file.

    Args:
        data_dir: the folder with the files `train.parquet` and `test.parquet`.
        part: "train" or "test".
        image_size: height and width that the frames are brought to, with antialiasing, in pixels; None keeps those
            they have.

    Returns:
        The episodes in the order of the file, whose episodes are all of one length and size.

    Raises:
        InputError: PyArrow is not installed, the folder, the file or a column is missing, the file or the frames of an
            episode are damaged, or the episodes are not as described above.

    Example:
        >>> episodes = read("doom_video", "test")
        >>> episodes.frames.shape, episodes.actions.shape
        ((16, 64, 84, 84, 3), (16, 64))
    """
    return _read(*_open(data_dir, part), image_size)


def _open(data_dir: str | os.PathLike, part: str):
    """The `pyarrow.parquet.ParquetFile`, known to have the columns, and its path."""
    try:
        import pyarrow
        from pyarrow import parquet, types
    except ImportError as error:
        raise InputError(f"The data set 'episodes' needs PyArrow ({error}): pip install 'vq_keras[video]'.") from error

    folder = pathlib.Path(data_dir)
    if not folder.is_dir():
        raise InputError(f"There is no folder of episodes {folder}.")
    path = folder / f"{part}.parquet"
    if not path.is_file():
        raise InputError(f"The folder of episodes {folder} has no file {path.name}.")
    try:
        file = parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise _damaged(path, error) from error
    schema = file.schema_arrow
    for name in _COLUMNS:
        if name not in schema.names:
            raise InputError(f"{path} has the columns {', '.join(schema.names)}, but no column '{name}'.")
    frames, action = (schema.field(name).type for name in _COLUMNS)
    if not types.is_struct(frames) or frames.get_field_index("bytes") < 0:
        raise InputError(f"The column 'frames' of {path} must be a struct with the field 'bytes', but it is {frames}.")
    lists = (pyarrow.ListType, pyarrow.LargeListType, pyarrow.FixedSizeListType)
    if not isinstance(action, lists) or not types.is_integer(action.value_type):
        raise InputError(f"The column 'action' of {path} must be lists of integers, but it is {action}.")
    return file, path


def _read(file, path: pathlib.Path, size: int | None) -> Episodes:
    import pyarrow
    from pyarrow import compute

    try:
        table = file.read(columns=_COLUMNS)
    except (OSError, pyarrow.ArrowException) as error:
        raise _damaged(path, error) from error
    if not len(table):
        raise InputError(f"{path} holds no episodes.")
    encoded = compute.struct_field(table["frames"], "bytes").to_pylist()
    actions = table["action"].to_pylist()
    # Pillow decodes and resizes outside Python's lock, so threads use every core.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        frames = list(pool.map(lambda row: _frames(encoded[row], row, path, size), range(len(encoded))))
    for row, (episode, taken) in enumerate(zip(frames, actions, strict=True)):
        if episode.shape != frames[0].shape:
            raise InputError(
                f"Episode {row} of {path} has frames of shape {episode.shape}, while the first has {frames[0].shape}: "
                "make all of one length and size."
            )
        if len(taken or []) != len(episode):
            raise InputError(f"Episode {row} of {path} has {len(episode)} frames, but {len(taken or [])} actions.")
    return Episodes(np.stack(frames), np.array(actions, np.int32))


def _frames(encoded: bytes | None, row: int, path: pathlib.Path, size: int | None) -> np.ndarray:
    """The frames of an episode, uint8 (time, size, size, 3)."""
    try:
        image = decoding.upright(io.BytesIO(encoded)).convert("RGB")
    except decoding.DAMAGE as error:
        raise InputError(
            f"The frames of episode {row} of {path} cannot be read ({error}): write them again."
        ) from error
    if image.height % image.width:
        raise InputError(
            f"The frames of episode {row} of {path} are no squares one below the other: their image is {image.width} "
            f"pixels wide and {image.height} high."
        )
    frames = np.asarray(image).reshape(-1, image.width, image.width, 3)
    if size in (None, image.width):
        return frames
    return np.stack([decoding.square(Image.fromarray(frame), size) for frame in frames])


def _damaged(path: pathlib.Path, error: Exception) -> InputError:
    return InputError(f"{path} is damaged or is no Parquet file ({error}): write it again.")
