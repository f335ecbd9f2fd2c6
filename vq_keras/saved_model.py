"""What every export shares: named signatures, version directories, and the check that a server would run them."""

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np

from vq_keras import model_card, warm_up
from vq_keras.errors import InputError
from vq_keras.training.files import flush_to_disk

_ASIDE = ".writing"  # Servers look at folders whose names are numbers.


@dataclasses.dataclass(frozen=True)
class Signature:
    """A function that a server offers by name.

    Args:
        function: takes the inputs as positional tensors, in order; returns a dict of tensors by output name, each
            with the batch as its first axis.
        inputs: shape (with None for what varies) and dtype of each input, by name.
        about: what it does, in a sentence, for the model card.
        words: what each input and output is, by name, for the model card; other names may be among them.
        examples: inputs by name, such as clients of all kinds will send; a server runs them when it loads the model.
    """

    function: Callable
    inputs: dict[str, tuple[tuple, str]]
    about: str = ""
    words: dict[str, str] = dataclasses.field(default_factory=dict)
    examples: Sequence[dict[str, np.ndarray]] = ()


def write(directory, signatures: dict[str, Signature], resources=(), card: dict | None = None) -> Path:
    """Writes a SavedModel as the next version below a directory, as TF Serving looks for it.

    It is written aside, checked as in `vq_keras.serving_check`, and renamed: a server that watches the directory
    sees a whole version or none, and one that it would refuse is never there. What a killed process left aside is
    removed by the next one that writes.

    Args:
        directory: the model's directory; versions 1, 2, ... are folders in it.
        signatures: by name; the first is also `serving_default`. Their examples become the requests that TF Serving
            warms up with, `vq_keras.warm_up.FILE`.
        resources: what they use besides variables and is to be saved with them, such as a tokenizer.
        card: what `vq_keras.model_card.describe` says of the model's run. With the signatures in words it becomes
            `vq_keras.model_card.FILE`.

    Returns:
        The folder of the new version.

    Raises:
        InputError: on another backend than TensorFlow; where the directory cannot be written, or another process is
            writing to it; where there are examples and no tensorflow-serving-api; where the check found something,
            all of which the message says.
    """
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"SavedModels are written by TensorFlow, not by {keras.backend.backend()}: set KERAS_BACKEND=tensorflow; "
            "a model.keras that was trained on another backend loads there."
        )
    import tensorflow as tf

    if any(signature.examples for signature in signatures.values()):
        warm_up.check_installed()
    directory = Path(directory)
    try:
        with _aside(directory) as aside:
            archive = keras.export.ExportArchive()  # Without track(model), which would write every variable twice.
            for resource in resources:
                archive.track(resource)
            for name, signature in signatures.items():
                specs = [tf.TensorSpec(shape, dtype, name=key) for key, (shape, dtype) in signature.inputs.items()]
                archive.add_endpoint(name, signature.function, specs)
            archive.write_out(str(aside), verbose=False)
            warm_up.write(aside, directory.name, signatures)
            if card is not None:
                model_card.write(aside, card, signatures)
            _check(aside)
            for path in aside.rglob("*"):
                flush_to_disk(path)
            version = directory / str(max(_versions(directory), default=0) + 1)
            os.rename(aside, version)
            flush_to_disk(directory)
    except (OSError, tf.errors.OpError) as error:
        if isinstance(error, OSError):
            reason = error.strerror or error
        else:  # "{{the operation}} the file; the reason [Op:its kind]".
            reason = error.message.partition(" [Op:")[0].rpartition("; ")[2]
        raise InputError(f"{directory} cannot be written ({reason}); give another directory, or make room.") from error
    return version


@contextlib.contextmanager
def _aside(directory):
    """The folder to write to; no other process has it at the same time, and whatever happens it does not stay."""
    import fcntl  # Not on Windows, as the check.

    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # Ends with the process, however that ends.
    except BlockingIOError:
        os.close(descriptor)
        raise InputError(f"Another process is writing to {directory}: wait for it to end.") from None
    aside = directory / _ASIDE
    try:
        shutil.rmtree(aside, ignore_errors=True)
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        os.close(descriptor)


def _versions(directory):
    return [int(path.name) for path in directory.iterdir() if path.name.isdigit()]


def _check(path):
    """In a process of its own: switching XLA off, as the server does, cannot be taken back."""
    # The version of the C++ switch that the check calls is that of this process's TensorFlow.
    command = [sys.executable, "-m", "vq_keras.serving_check", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or [f"the check ended with {result.returncode}"])[-1]
        findings = result.stdout.strip() or last
        raise InputError(f"TF Serving would not run this export, so it was not kept: {findings}")
