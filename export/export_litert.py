"""Writes a trained translator as one file for LiteRT, which runs it on CPUs and devices without TensorFlow."""

import dataclasses
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vq_keras.errors import InputError, run_command

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@dataclasses.dataclass(frozen=True)
class Config:
    """Write the model of a translator's run, its vocabulary and its search as one .tflite file.

    `python -m vq_keras.translate --model FILE` runs it, and from Python `vq_keras.litert_model.load(FILE)`;
    `vq_keras.litert_model.write` says what is in it.
    """

    run_dir: Annotated[Path, tyro.conf.Positional]
    """The folder of a finished run of recipes/train_teacher.py, train_translation.py or train_nat.py."""
    out: Annotated[Path, tyro.conf.Positional]
    """The file to write, NAME.tflite."""
    quantize: Literal["int8", "none"] = "int8"
    """int8: weights of 8 bits, a quarter of the size and several times as fast; none: float32."""
    beams: int | None = None
    """Search with so many beams, in place of greedily: of an autoregressive Transformer."""
    candidates: int | None = None
    """Take the best of so many translations: of the other models."""


def export(config):
    from vq_keras import litert_model
    from vq_keras.training import runs

    if config.out.suffix != ".tflite":
        raise InputError(f"{config.out} does not end in .tflite, by which such a model is known: name it so.")
    model, vocabulary, settings = runs.load_translator(config.run_dir)
    search = litert_model.search_of(model, config.beams, config.candidates)
    litert_model.write(config.out, search, vocabulary, settings["max_length"], config.quantize == "int8")
    size = config.out.stat().st_size / 1e6
    print(
        f"LiteRT model: {config.out}, {size:.1f} MB; translate with it:\n\n"
        f"python -m vq_keras.translate --model {shlex.quote(str(config.out))} < sentences.txt"
    )


def main(argv=None):
    return run_command(export, tyro.cli(Config, args=argv))


if __name__ == "__main__":
    sys.exit(main())
