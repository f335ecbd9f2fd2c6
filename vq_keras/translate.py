"""Translates standard input, a sentence a line, by a model in this process or one that is served.

python -m vq_keras.translate --model exports/numbers-text < sentences.txt > translations.txt
"""

import contextlib
import dataclasses
import os
import signal
import sys
from collections.abc import Sequence

import tyro

from vq_keras.errors import InputError

DEFAULT_MODEL = "multi30k-en-de-latent"
_INTERRUPTED = "interrupted"


@dataclasses.dataclass(frozen=True)
class Config:
    """Translate standard input, a sentence a line, to standard output, a translation a line in the same order.

    Standard error names the lines that were cut to be translated, and those that failed, which are empty in the
    output. Exit status: 0, 1 where a line failed, 2 where there is no such model or server, 130 after an interruption;
    what was translated by then is written.
    """

    model: str | None = None
    """To translate in this process: a SavedModel of text or one version of it, FILE.tflite, the folder of a run, or
    the name of a preset. Where neither this nor --server is given, the preset multi30k-en-de-latent: captions from
    English to German."""
    server: str | None = None
    """To be translated by TF Serving: HOST:PORT or grpcs://HOST:PORT for gRPC, http://HOST:PORT or https://HOST:PORT
    for REST; with the s encrypted."""
    name: str | None = None
    """The model's name at the server."""
    version: int | None = None
    """The version of the model; the latest where not given."""
    label: str | None = None
    """The label of a version at the server."""
    signature: str = "translate"
    """How to search: translate_beam (of a teacher) and translate_candidates (of the others) take longer."""
    batch_size: int = 32
    """Sentences of a request, at most."""
    in_flight: int = 4
    """Requests to a server at a time."""
    deadline: float = 60.0
    """Seconds that a request to a server may take, with all its attempts."""
    attempts: int = 5
    """How often a request is sent at most, where the server is away or overloaded."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: its arguments; None takes those of the process.

    Returns:
        The exit status, as `Config` has it.
    """
    config = tyro.cli(Config, args=argv, prog="python -m vq_keras.translate")
    if sys.stdin is None or sys.stdout is None:
        print("error: sentences come from standard input and go to standard output: open both.", file=sys.stderr)
        return 2
    try:
        return _translate(config)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted before the first line was translated.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # Nobody reads on, as in `| head`.
        return 1
    except OSError as error:
        print(f"error: standard input or output fails ({error.strerror or error}).", file=sys.stderr)
        return 1


def _translate(config):
    from vq_keras.translation_client import Failure, TranslationStream
    from vq_keras.translation_client.lines import Remarks, read_lines, write_line

    translator, in_flight = _open(config)
    stream = TranslationStream(translator, read_lines(sys.stdin.fileno()), config.batch_size, in_flight)
    remarks, number, failed = Remarks(), 0, False
    with _interruption_stops(stream), _progress() as advance:
        try:
            for number, result in enumerate(stream, 1):
                if isinstance(result, Failure):
                    failed = True
                    remarks.add(number, f"not translated: {result.reason}")
                elif result.truncated:
                    remarks.add(number, "longer than the model takes, and translated as far as that")
                write_line("" if isinstance(result, Failure) else result.text)
                advance()
        finally:
            remarks.flush()
    if stream.stopped is not None:
        print(f"stopped ({stream.stopped}): nothing was read after line {number}.", file=sys.stderr)
    return 130 if stream.stopped == _INTERRUPTED else int(failed)


def _open(config):
    from vq_keras.translation_client import open_model, open_server

    if config.server is None:
        if config.name is not None or config.label is not None:
            raise InputError("--name and --label are those of a model at a server: give --server, too.")
        model = DEFAULT_MODEL if config.model is None else config.model
        return open_model(model, config.signature, config.version), 1
    if config.model is not None:
        raise InputError("--model translates in this process and --server at another: give one of them.")
    if config.name is None:
        raise InputError("--server has models by name: give --name.")
    settings = {"version": config.version, "label": config.label, "signature": config.signature}
    settings |= {"deadline": config.deadline, "attempts": config.attempts}
    return open_server(config.server, config.name, **settings), config.in_flight


@contextlib.contextmanager
def _interruption_stops(stream):
    """The first interruption by keyboard ends the stream with what it has; the second ends the process."""

    def stop(number, frame):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        stream.stop(_INTERRUPTED)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _progress():
    """What to call after each line; it shows their number where standard error alone is a terminal."""
    if sys.stdout.isatty() or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich import console, progress

    columns = (progress.SpinnerColumn(), "{task.completed:,} sentences", progress.TimeElapsedColumn())
    with progress.Progress(*columns, console=console.Console(stderr=True)) as shown:
        task = shown.add_task("", total=None)
        yield lambda: shown.advance(task)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # All is written. After an interruption a thread may be inside of TensorFlow still, which Python's own end aborts.
    os._exit(main())
