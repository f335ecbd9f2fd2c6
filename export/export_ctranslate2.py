"""Writes a trained teacher as a model of CTranslate2."""

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
    """Write the autoregressive Transformer of a run as a folder that CTranslate2 loads, vocabulary.model in it.

    What its searches do otherwise than those of this library: `vq_keras.ctranslate2_model.write`.
    """

    run_dir: Annotated[Path, tyro.conf.Positional]
    """The folder of a finished run of recipes/train_teacher.py."""
    out_dir: Annotated[Path, tyro.conf.Positional]
    """The folder to write, which must not exist yet."""


def usage(out_dir):
    """The lines of Python that translate with what was written."""
    from vq_keras.data.vocabulary import FILE

    return (
        "import ctranslate2, sentencepiece\n"
        f"vocabulary = sentencepiece.SentencePieceProcessor(model_file={str(out_dir / FILE)!r})\n"
        f"translator = ctranslate2.Translator({str(out_dir)!r})\n"
        'found = translator.translate_batch([vocabulary.encode("two books", out_type=str)], beam_size=4)\n'
        "print(vocabulary.decode(found[0].hypotheses[0]))"
    )


def export(config):
    from vq_keras import ctranslate2_model
    from vq_keras.training import runs

    model, vocabulary, _ = runs.load_translator(config.run_dir)
    ctranslate2_model.write(config.out_dir, model, vocabulary)
    print(f"CTranslate2 model: {config.out_dir}; translate with it:\n\n{usage(config.out_dir)}")


def main(argv=None):
    return run_command(export, tyro.cli(Config, args=argv))


if __name__ == "__main__":
    sys.exit(main())
