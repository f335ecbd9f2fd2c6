"""Files that a reader sees whole or not at all, whatever happens to the process that writes them."""

import os
from pathlib import Path


def flush_to_disk(path: Path) -> None:
    """Waits until a file or a folder has reached the disk, so that a rename that follows cannot overtake it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: str | Path, content: bytes) -> None:
    """Writes `content` beside `path`, then renames it to `path`; makes the folder when it is missing.

    A process killed half-way leaves the old file as it was.

    Args:
        path: the file to make or to replace.
        content: all of its bytes.

    Example:
        >>> replace_file("/tmp/vq_keras_example/history.csv", b"step,loss\\n")
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    try:
        aside.write_bytes(content)
        flush_to_disk(aside)
        os.replace(aside, path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
