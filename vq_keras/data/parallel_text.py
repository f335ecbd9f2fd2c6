"""Sentence pairs from two text files, line by line."""

import codecs
import gzip
import os
import pathlib
import zlib

from vq_keras.data.translation_data import Pairs
from vq_keras.errors import InputError


def read(source_path: str | os.PathLike, target_path: str | os.PathLike) -> Pairs:
    """Reads two files of which line i of the one translates line i of the other.

    Lines end with "\\n" (or "\\r\\n") alone: the rarer separators of Unicode, U+2028 and the like, stand inside of
    sentences in real corpora. White space around a sentence is dropped, and so is a byte order mark.

    Args:
        source_path: UTF-8, a sentence a line; compressed by gzip if its name ends in `.gz`.
        target_path: the same, in the other language.

    Returns:
        The pairs, in the order of the files.

    Raises:
        InputError: a file is missing, damaged, empty or not UTF-8, has an empty line, or one has more lines than the
            other.

    Example:
        >>> for name, line in [("/tmp/en.txt", "two books\\n"), ("/tmp/de.txt", "zwei Bücher\\n")]:
        ...     _ = pathlib.Path(name).write_text(line, encoding="utf-8")
        >>> read("/tmp/en.txt", "/tmp/de.txt")
        Pairs(sources=['two books'], targets=['zwei Bücher'])
    """
    sources, targets = read_side(source_path), read_side(target_path)
    if len(sources) != len(targets):
        raise InputError(
            f"{source_path} has {len(sources):,} lines and {target_path} has {len(targets):,}: "
            "line i of the one must translate line i of the other."
        )
    return Pairs(sources, targets)


def read_side(path: str | os.PathLike) -> list[str]:
    """The sentences of one file, by the rules of `read`."""
    path = pathlib.Path(path)
    content = _content(path).removeprefix(codecs.BOM_UTF8).removesuffix(b"\n")
    if not content:
        raise InputError(f"{path} is empty: it must hold a sentence a line.")
    lines = []
    for number, line in enumerate(content.split(b"\n"), 1):
        try:
            lines.append(line.decode().strip())
        except UnicodeDecodeError as error:
            raise InputError(f"Line {number:,} of {path} is not UTF-8 ({error.reason}): convert the file.") from error
        if not lines[-1]:
            raise InputError(f"Line {number:,} of {path} is empty: remove it from both files, or fill it.")
    return lines


def _content(path: pathlib.Path) -> bytes:
    try:
        if path.suffix != ".gz":
            return path.read_bytes()
        with gzip.open(path) as file:
            return file.read()
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}.") from error
    # `gzip` raises the first for no gzip file at all, the others for one that is cut or changed.
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged or is no gzip file ({error}).") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
