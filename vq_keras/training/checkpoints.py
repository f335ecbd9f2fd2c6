"""Checkpoints that survive SIGKILL at any moment and know when they are damaged.

One folder a checkpoint, `step-00000100/`, with

    variables.npz   every variable that training moves, in order
    state.json      the step, what the caller added, and path, shape and dtype of each variable
    SHA256SUMS      the checksums of the two, as `sha256sum --check` reads them

The folder is written under another name, flushed to the disk, then renamed: it is there whole or not at all.
"""

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from itertools import islice
from pathlib import Path

import keras
import numpy as np

from vq_keras.errors import InputError, TrainingStopped
from vq_keras.training.files import flush_to_disk

FILES = ("variables.npz", "state.json")
SUMS = "SHA256SUMS"
UNFINISHED = ".unfinished-"


class Checkpoints:
    """The last few checkpoints of one model in one folder.

    What is kept is all that decides how training goes on: weights, statistics that training moves without gradients,
    the seeds of the model's random layers, and the optimizer with its step count and loss scale. Metrics are left out;
    they start anew at each interval. Variables are told apart by their order, shape and dtype, because Keras numbers
    its automatic names through a process: a `dense` here may be a `dense_1` there.

    On JAX, Keras holds these variables elsewhere during `fit`; save at the end of an epoch, when they are back.

    Args:
        directory: where the checkpoints are; made at the first `save`.
        keep: how many of the latest stay.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("adam", "mse")
        >>> checkpoints = Checkpoints("/tmp/vq_keras_example/checkpoints")
        >>> checkpoints.save(model, step=100, extra={"note": "half-way"})
        >>> checkpoints.restore(model)
        (100, {'note': 'half-way'})
    """

    def __init__(self, directory: str | Path, keep: int = 2):
        if keep < 1:
            raise InputError(f"At least one checkpoint must be kept, not {keep}.")
        self.directory = Path(directory)
        self.keep = keep

    def save(self, model: keras.Model, step: int, extra: dict) -> None:
        """Saves a compiled model after `step` steps.

        Args:
            model: a built and compiled model.
            step: steps of training done so far.
            extra: anything that JSON can hold; `restore` gives it back.

        Raises:
            TrainingStopped: a variable is not finite. No checkpoint is written then: a loss is computed before its
                update, so the update may have spoilt the weights although every loss up to here was finite.
        """
        variables = _variables(model)
        arrays = [_to_array(variable) for variable in variables]
        for variable, array in zip(variables, arrays, strict=True):
            if not np.all(np.isfinite(array)):
                raise TrainingStopped(
                    f"{variable.path} is not finite after step {step}: "
                    "try a lower learning rate, a longer warm-up or gradient clipping."
                )
        state = {"step": step, "extra": extra, "variables": [_description(variable) for variable in variables]}

        self.directory.mkdir(parents=True, exist_ok=True)
        for leftover in self.directory.glob(f"{UNFINISHED}*"):
            shutil.rmtree(leftover)
        final = self.directory / f"step-{step:08d}"
        aside = self.directory / f"{UNFINISHED}{final.name}"
        aside.mkdir()
        np.savez(aside / FILES[0], **{_key(index): array for index, array in enumerate(arrays)})
        (aside / FILES[1]).write_text(json.dumps(state))
        (aside / SUMS).write_text("".join(f"{_sha256(aside / name)}  {name}\n" for name in FILES))
        for path in (*(aside / name for name in (*FILES, SUMS)), aside):
            flush_to_disk(path)
        # A folder of that name is here only if it is damaged, or `restore` would have gone on from it.
        self._remove(final)
        os.rename(aside, final)
        flush_to_disk(self.directory)
        self._prune(step)

    def restore(self, model: keras.Model) -> tuple[int, dict] | None:
        """Gives a model the state of the newest checkpoint that is not damaged; warns about each that is.

        Args:
            model: a built and compiled model of the same architecture and optimizer; its optimizer is built if need be.

        Returns:
            `(step, extra)` as they were saved, or None when there is no checkpoint at all.

        Raises:
            InputError: all checkpoints are damaged, or the newest whole one is of another architecture.
        """
        path = next(self._whole(), None)
        return None if path is None else _restore(model, path)

    def restore_mean(self, model: keras.Model, number: int) -> list[int]:
        """Gives a model the mean of its weights in the last few checkpoints that are not damaged.

        Weights go on wandering around what they have found; their mean is nearer to it than the last of them. Vaswani
        et al. 2017, section 6.1, take the last five or twenty checkpoints, ten minutes apart. The model is then for
        use, not for more training: optimizer, seeds and integers are those of the newest checkpoint.

        Args:
            model: as for `restore`.
            number: how many checkpoints; no more than `keep` of the one who saved them.

        Returns:
            The steps of the checkpoints, oldest first.

        Raises:
            InputError: there are fewer whole checkpoints, or one of them is of another architecture.

        Example:
            >>> history = fit(model, batches, steps=8000, run_dir="run", interval=100, keep=10)
            >>> Checkpoints("run/checkpoints").restore_mean(model, 10)
            [7100, 7200, 7300, 7400, 7500, 7600, 7700, 7800, 7900, 8000]
        """
        if number < 1:
            raise InputError(f"The mean must be of at least one checkpoint, not {number}.")
        paths = list(islice(self._whole(), number))
        if len(paths) < number:
            raise InputError(
                f"{self.directory} holds {len(paths)} of the {number} checkpoints whose mean was asked for: "
                "ask for fewer, or let the run keep more."
            )
        _restore(model, paths[0])
        variables = _variables(model)
        steps = [_load_state(path, variables)["step"] for path in reversed(paths)]
        weights = {id(weight) for weight in model.weights if keras.backend.is_float_dtype(weight.dtype)}
        with ExitStack() as stack:
            files = [stack.enter_context(np.load(path / FILES[0], allow_pickle=False)) for path in paths]
            for index, variable in enumerate(variables):
                if id(variable) in weights:
                    variable.assign(np.mean([arrays[_key(index)] for arrays in files], axis=0, dtype="float64"))
        return steps

    def _whole(self) -> Iterator[Path]:
        """The checkpoints that are not damaged, newest first; warns about each that is, and raises if all are."""
        found = sorted(self._steps().items(), reverse=True)
        any_whole = False
        for _, path in found:
            damage = _damage(path)
            if damage:
                warnings.warn(f"The checkpoint {path} is damaged ({damage}) and was passed over.", stacklevel=3)
                continue
            any_whole = True
            yield path
        if found and not any_whole:
            raise InputError(
                f"Every checkpoint in {self.directory} is damaged: "
                "remove the folder to start from the beginning, or choose another run directory."
            )

    def _steps(self) -> dict[int, Path]:
        paths = self.directory.glob("step-*")
        return {int(match[1]): path for path in paths if (match := re.fullmatch(r"step-(\d+)", path.name))}

    def _prune(self, newest: int) -> None:
        # Beyond the newest can only lie damaged ones, which `restore` passed over.
        steps = self._steps()
        kept = sorted(step for step in steps if step <= newest)[-self.keep :]
        for step, path in steps.items():
            if step not in kept:
                self._remove(path)

    def _remove(self, path: Path) -> None:
        # Renamed first, so that a half-removed checkpoint is never taken for a damaged one.
        if path.exists():
            doomed = self.directory / f"{UNFINISHED}removal-{path.name}"
            os.rename(path, doomed)
            shutil.rmtree(doomed)


def _variables(model: keras.Model) -> list[keras.Variable]:
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not model.built:
        raise InputError(f"The model {model.name!r} must be built and compiled before it has a state to save.")
    if not optimizer.built:
        # Under tf.distribute an optimizer's variables must be made in the scope that the model's were made in.
        strategy = getattr(model, "distribute_strategy", None)
        with strategy.scope() if strategy else nullcontext():
            optimizer.build(model.trainable_variables)
    return [*model.variables, *optimizer.variables]


def _to_array(variable: keras.Variable) -> np.ndarray:
    array = np.asarray(variable)
    # NumPy's files do not know bfloat16 and its like ("V"); float32 holds each of their values exactly.
    return array.astype("float32") if array.dtype.kind == "V" else array


def _key(index: int) -> str:
    return f"{index:05d}"


def _description(variable: keras.Variable) -> list:
    return [variable.path, list(variable.shape), str(variable.dtype)]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damage(path: Path) -> str:
    """What is wrong with a checkpoint, or nothing."""
    for name in (*FILES, SUMS):
        if not (path / name).is_file():
            return f"{name} is missing"
    sums = (path / SUMS).read_bytes().splitlines()
    for name in FILES:
        if f"{_sha256(path / name)}  {name}".encode() not in sums:
            return f"{name} does not match its checksum"
    return ""


def _restore(model: keras.Model, path: Path) -> tuple[int, dict]:
    variables = _variables(model)
    state = _load_state(path, variables)
    with np.load(path / FILES[0], allow_pickle=False) as arrays:
        for index, variable in enumerate(variables):
            variable.assign(arrays[_key(index)])
    return state["step"], state["extra"]


def _load_state(path: Path, variables: list[keras.Variable]) -> dict:
    """What a checkpoint's state.json holds, if its variables are of the same architecture."""
    state = json.loads((path / FILES[1]).read_text())
    saved = state["variables"]
    advice = "choose another run directory, or the settings that this one was made with."
    here = [_description(variable) for variable in variables]
    for (old_path, *old), (new_path, *new) in zip(saved, here, strict=False):
        if old != new:
            raise InputError(
                f"The checkpoint {path} is of another architecture ({old_path} {old[0]} {old[1]} there, "
                f"{new_path} {new[0]} {new[1]} here): {advice}"
            )
    if len(saved) != len(here):
        raise InputError(
            f"The checkpoint {path} is of another architecture ({len(saved)} variables there, {len(here)} here): "
            f"{advice}"
        )
    return state
