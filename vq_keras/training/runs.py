"""The folder of a run, or a preset by name: which configuration it belongs to, and the model it ended with."""

import csv
import hashlib
import json
import os
import zipfile
from pathlib import Path

import keras

from vq_keras import presets
from vq_keras.data.vocabulary import FILE, Vocabulary
from vq_keras.errors import InputError
from vq_keras.training.files import replace_file

CONFIG, HISTORY, METRICS, MODEL = "config.json", "history.csv", "metrics.json", "model.keras"
# Of a run's folder, in its configuration; one more whenever what is written now would be misread by what reads today:
# Keras passes over arguments of a model that it does not know. (N-grams, which an older version would pass over, only
# choose among what a model writes.)
FORMAT = 1


def claim(run_dir, config):
    """Makes a run's folder, or makes sure that the one there is this run's.

    Args:
        run_dir: the folder.
        config: everything that decides the run's outcome, a dict that JSON can hold.

    Raises:
        InputError: where the folder belongs to a run of another configuration; the message names what differs. Where
            the folder cannot be made, or its configuration cannot be read.
    """
    path = Path(run_dir) / CONFIG
    config = {"format": FORMAT, **config}
    if path.exists():
        there = load_config(run_dir)
        differing = [
            f"{name} {there.get(name)!r}, not {config.get(name)!r}"
            for name in sorted(there.keys() | config.keys())
            if there.get(name) != config.get(name)
        ]
        if differing:
            raise InputError(
                f"{run_dir} holds a run of another configuration ({'; '.join(differing)}): "
                "give those values to continue it, or another --run-dir."
            )
        return
    try:
        replace_file(path, (json.dumps(config, indent=2) + "\n").encode())
    except OSError as error:
        raise InputError(f"the run directory {run_dir} cannot be written ({error.strerror}); give another.") from None


def find(run_dir) -> Path:
    """The folder of a run: `run_dir` itself, or that of the preset of this name where there is no such folder.

    Example:
        >>> find("multi30k-en-de-teacher").name
        'multi30k-en-de-teacher'
    """
    run_dir = Path(run_dir)
    if not run_dir.exists() and str(run_dir) in presets.names():
        return presets.folder(str(run_dir))
    return run_dir


def load_config(run_dir):
    """The configuration of a run, or of a preset.

    Raises:
        InputError: where `run_dir` is no run's folder, its configuration is damaged, or it is of another format.
    """
    run_dir = find(run_dir)
    path = run_dir / CONFIG
    try:
        config = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{run_dir} is neither a run directory (it has no {CONFIG}) nor one of the presets: "
            f"{', '.join(presets.names())}."
        ) from None
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict):
        raise InputError(f"{path} is damaged; start the run again in another directory.")
    if config.setdefault("format", 1) != FORMAT:
        raise InputError(
            f"{run_dir} is of format {config['format']}, and this version of vq_keras knows format {FORMAT}: use the "
            "version that trained it."
        )
    return config


def load_metrics(run_dir) -> dict | None:
    """The figures of a run at its end, or of a preset; None where it has none.

    Raises:
        InputError: where they are damaged.
    """
    path = find(run_dir) / METRICS
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise InputError(f"{path} is damaged; evaluate the run again, or remove the file.") from None


def load_history(run_dir) -> list[dict[str, float]]:
    """The metrics of a run so far, finished or not, a dictionary for each interval.

    Raises:
        InputError: where `run_dir` is no run's folder, or there is no history in it, or a damaged one.
    """
    run_dir = find(run_dir)
    load_config(run_dir)
    path = run_dir / HISTORY
    try:
        with open(path, newline="") as file:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    except FileNotFoundError:
        raise InputError(f"{run_dir} has no {HISTORY} yet: let its training reach the end of an interval.") from None
    except (OSError, ValueError, TypeError):
        raise InputError(f"{path} is damaged; continue the run, which writes it anew.") from None


def save_model(model, run_dir):
    """Writes a run's trained model, `model.keras`, aside and then renamed."""
    path = Path(run_dir) / MODEL
    aside = path.with_name(f".tmp.{MODEL}")  # Keras wants the ending.
    model.save(aside)
    os.replace(aside, path)


def fingerprint(run_dir) -> str:
    """Of a run's trained model: another when it was trained again.

    Raises:
        InputError: where the run has no model.
    """
    with open(_model_file(run_dir), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def load_translator(run_dir):
    """The trained model of a translator's run or of a preset, its vocabulary and its configuration.

    Raises:
        InputError: as `load_model`; where the run is no translator's; or where its vocabulary is missing, damaged or
            another than the one it was trained with.
    """
    run_dir = find(run_dir)
    config = load_config(run_dir)
    if "vocabulary" not in config:
        raise InputError(f"{run_dir} is not the run of a translator.")
    vocabulary = Vocabulary.load(run_dir / FILE, config["vocabulary"])
    return load_model(run_dir), vocabulary, config


def load_judge(run_dir, vocabulary: Vocabulary):
    """The autoregressive Transformer of a run, to score the translations of a model with the same vocabulary.

    Raises:
        InputError: as `load_translator`; where the run's model is another one, or has another vocabulary.
    """
    from vq_keras.models.transformer import Transformer

    model = _load_with(run_dir, vocabulary)
    if not isinstance(model, Transformer):
        raise InputError(f"{run_dir} is no judge: give the run of an autoregressive Transformer.")
    return model


def load_start(run_dir, vocabulary: Vocabulary, kind: type):
    """The model of a run, for another of its kind with the same vocabulary to start from.

    Raises:
        InputError: as `load_translator`; where the run's model is no `kind`, or has another vocabulary.
    """
    model = _load_with(run_dir, vocabulary)
    if not isinstance(model, kind):
        raise InputError(
            f"{run_dir} is nothing for a {kind.__name__} to start from: it is the run of a {type(model).__name__}."
        )
    return model


def _load_with(run_dir, vocabulary):
    model, its_vocabulary, _ = load_translator(run_dir)
    if its_vocabulary.fingerprint != vocabulary.fingerprint:
        raise InputError(
            f"{run_dir} has another vocabulary: its ids would mean other words. Train with --vocabulary "
            f"{find(run_dir) / FILE}, or on what it has distilled."
        )
    return model


def load_model(run_dir):
    """The trained model of a finished run, or of a preset.

    Raises:
        InputError: where `run_dir` is no run's folder, the run has not ended, or its model is damaged.
    """
    # Keras finds the classes of a file only once they are imported.
    from vq_keras.models import (  # noqa: F401
        code_autoencoder,
        image,
        latent_transformer,
        parallel_transformer,
        transformer,
    )

    path = _model_file(run_dir)
    try:
        return keras.models.load_model(path, compile=False)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}): it is damaged, or of another version of vq_keras; use "
            "the version that trained it, or train the run again."
        ) from error


def _model_file(run_dir):
    run_dir = find(run_dir)
    load_config(run_dir)
    path = run_dir / MODEL
    if not path.exists():
        raise InputError(f"{run_dir} has no {MODEL} yet: let its training end first.")
    return path
