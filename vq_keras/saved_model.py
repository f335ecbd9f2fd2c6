"""What every export shares: named signatures, version directories, and the check that a server would run them."""

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras

from vq_keras.errors import InputError


@dataclasses.dataclass(frozen=True)
class Signature:
    """A function that a server offers by name.

    Args:
        function: takes the inputs as positional tensors, in order; returns a dict of tensors by output name, each
            with the batch as its first axis.
        inputs: shape (with None for what varies) and dtype of each input, by name.
    """

    function: Callable
    inputs: dict[str, tuple[tuple, str]]


def write(directory, signatures: dict[str, Signature], resources=()) -> Path:
    """Writes a SavedModel as the next version below a directory, as TF Serving looks for it.

    It is written aside, checked as in `vq_keras.serving_check`, and renamed: a server that watches the directory
    sees a whole version or none, and one that it would refuse is never there.

    Args:
        directory: the model's directory; versions 1, 2, ... are folders in it.
        signatures: by name; the first is also `serving_default`.
        resources: what they use besides variables and is to be saved with them, such as a tokenizer.

    Returns:
        The folder of the new version.

    Raises:
        InputError: on another backend than TensorFlow; where the directory cannot be written; where the check found
            something, all of which the message says.
    """
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"SavedModels are written by TensorFlow, not by {keras.backend.backend()}: set KERAS_BACKEND=tensorflow; "
            "a model.keras that was trained on another backend loads there."
        )
    import tensorflow as tf

    directory = Path(directory)
    aside = directory / f".writing-{os.getpid()}"
    try:
        aside.mkdir(parents=True)
        archive = keras.export.ExportArchive()  # Without track(model), which would write every variable twice.
        for resource in resources:
            archive.track(resource)
        for name, signature in signatures.items():
            specs = [tf.TensorSpec(shape, dtype, name=key) for key, (shape, dtype) in signature.inputs.items()]
            archive.add_endpoint(name, signature.function, specs)
        archive.write_out(str(aside / "model"), verbose=False)
        _check(aside / "model")
        version = directory / str(max(_versions(directory), default=0) + 1)
        os.rename(aside / "model", version)
    except OSError as error:
        raise InputError(f"{directory} cannot be written ({error.strerror}); give another directory.") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return version


def _versions(directory):
    return [int(path.name) for path in directory.iterdir() if path.name.isdigit()]


def _check(path):
    """In a process of its own: switching XLA off, as the server does, cannot be taken back."""
    # The version of the C++ switch that the check calls is that of this process's TensorFlow.
    command = [sys.executable, "-m", "vq_keras.serving_check", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        findings = result.stdout.strip() or result.stderr.strip().splitlines()[-1]
        raise InputError(f"TF Serving would not run this export, so it was not kept: {findings}")
