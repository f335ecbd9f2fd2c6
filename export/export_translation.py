"""Writes a trained translator as a SavedModel for TF Serving."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated

import tyro

from vq_keras.errors import run_command

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@dataclasses.dataclass(frozen=True)
class Config:
    """Write the model of a translator's run as the next version of a SavedModel directory.

    Signatures from ids to ids: translate (the default) and encode; translate_beam and score of an autoregressive
    Transformer; translate_candidates of the others; predict_latents and decode of a latent Transformer. With --text:
    those that translate, from strings to strings. `vq_keras.translation_signatures` and `vq_keras.text_signatures` say
    what each takes and gives. The model card, assets.extra/model_card.json, says it in short.
    """

    run_dir: Annotated[Path, tyro.conf.Positional]
    """The folder of a finished run of recipes/train_teacher.py, train_translation.py or train_nat.py."""
    out_dir: Annotated[Path, tyro.conf.Positional]
    """The model's folder; the version becomes a folder in it. Text and ids go to folders of their own."""
    text: bool = False
    """Take and give strings: the tokenizer is in the graph, which then needs TF Serving 2.20 or later."""
    beams: int | None = None
    """Of translate_beam; 4 where not given."""
    candidates: int | None = None
    """Of translate_candidates; 10 where not given."""
    max_length: int | None = None
    """Ids of the longest source, its end among them; longer ones are cut to it. That of the run where not given."""


def export(config):
    from vq_keras import model_card, saved_model
    from vq_keras.text_signatures import text_signatures
    from vq_keras.training import runs
    from vq_keras.translation_signatures import id_signatures, searches

    model, vocabulary, settings = runs.load_translator(config.run_dir)
    card = model_card.describe(config.run_dir, model)
    found = searches(model, config.beams, config.candidates)
    max_length = settings["max_length"] if config.max_length is None else config.max_length
    if config.text:
        signatures, resources = text_signatures(found, vocabulary, max_length)
    else:
        signatures, resources = id_signatures(found, max_length), []
    version = saved_model.write(config.out_dir, signatures, resources, {**card, "max_length": max_length})
    print(f"SavedModel: {version}")
    print(f"look at it with: saved_model_cli show --dir {version} --all")


def main(argv=None):
    return run_command(export, tyro.cli(Config, args=argv))


if __name__ == "__main__":
    sys.exit(main())
