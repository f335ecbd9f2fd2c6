"""Lines of text in, as they come, and lines out; and which lines had something to tell."""

import codecs
import os
import sys
from collections.abc import Iterator


def read_lines(descriptor: int) -> Iterator[str]:
    """The lines of a file as soon as they are there, without the white space around them.

    What is no UTF-8 is in them as surrogates, which no text has.

    Args:
        descriptor: of the file. It is read without Python's buffer, whose lock a thread that waits for input would
            still hold when the process ends.
    """
    rest, first = b"", True
    while block := os.read(descriptor, 1 << 16):
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield _decode(line, first)
            first = False
    if rest:
        yield _decode(rest, first)


def _decode(line, first):
    if first:
        line = line.removeprefix(codecs.BOM_UTF8)
    return line.decode(errors="surrogateescape").strip()


def write_line(text: str) -> None:
    """Writes a line to standard output, at once, in UTF-8: a line, whatever a model of bytes may have written."""
    sys.stdout.buffer.write(text.replace("\r", " ").replace("\n", " ").encode() + b"\n")
    sys.stdout.buffer.flush()


class Remarks:
    """Tells of lines on standard error; those that follow each other and have the same to tell are told of together.

    Example:
        >>> remarks = Remarks()
        >>> for number in (3, 4, 5, 9):
        ...     remarks.add(number, "not translated: no answer")
        >>> remarks.flush()
        lines 3 to 5: not translated: no answer
        line 9: not translated: no answer
    """

    def __init__(self):
        self._first = self._last = 0
        self._text = None

    def add(self, number: int, text: str) -> None:
        if (number, text) != (self._last + 1, self._text):
            self.flush()
            self._first, self._text = number, text
        self._last = number

    def flush(self) -> None:
        if self._text is not None:
            lines = f"lines {self._first} to {self._last}" if self._last > self._first else f"line {self._first}"
            print(f"{lines}: {self._text}", file=sys.stderr, flush=True)
        self._text = None
