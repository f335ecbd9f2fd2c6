"""Gives a trained translator the n-grams of a text in its target language, for its search."""

import dataclasses
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import tyro

from vq_keras.errors import InputError, run_command
from vq_keras.training.slots_config import ORDER

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@dataclasses.dataclass(frozen=True)
class Config:
    """Write a run's folder anew, whose model translates with the n-grams of a text.

    For runs of connectionist temporal classification (train_translation.py --decoder ctc, train_nat.py --lengths ctc),
    which get the n-grams of their training set at their end: here they get those of any text, such as a larger one
    without translations. How much they count is chosen by BLEU on the validation set, and a model that translates
    better without gets none.
    """

    run_dir: Annotated[Path, tyro.conf.Positional]
    """The folder of a finished run, or a preset."""
    out_dir: Annotated[Path, tyro.conf.Positional]
    """The folder to write, which must not exist yet."""
    text: Path
    """A file of the target language, a sentence a line, maybe compressed by gzip."""
    validation: tuple[Path, Path]
    """The file of sources and that of targets to choose by, none of them trained on."""
    test: tuple[Path, Path] | None = None
    """The same, to report on; no figures where not given."""
    order: int = ORDER
    """Length of the longest n-grams."""


def add(config):
    if config.out_dir.exists():
        raise InputError(f"{config.out_dir} exists already; give a folder that does not.")
    if config.order < 2:
        raise InputError(f"--order is {config.order}; give 2 or more.")
    from vq_keras.data import parallel_text
    from vq_keras.data.vocabulary import FILE
    from vq_keras.models.latent_transformer import LatentTransformer
    from vq_keras.models.parallel_transformer import ParallelTransformer
    from vq_keras.search import LatentSearch, ParallelSearch
    from vq_keras.training import runs, translation
    from vq_keras.training.ngrams import add_ngrams

    text = parallel_text.read_side(config.text)
    validation = parallel_text.read(*config.validation)
    test = None if config.test is None else parallel_text.read(*config.test)
    model, vocabulary, run = runs.load_translator(config.run_dir)
    kinds = {LatentTransformer: ("decoder", LatentSearch), ParallelTransformer: ("lengths", ParallelSearch)}
    choice, make_search = kinds.get(type(model), (None, None))
    if choice is None or getattr(model, choice) != "ctc":
        raise InputError(
            f"{config.run_dir} has no use for n-grams: they are for connectionist temporal classification."
        )
    try:
        config.out_dir.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(dir=config.out_dir.parent)
    except OSError as error:
        raise InputError(f"{config.out_dir} cannot be written ({error.strerror}); give another folder.") from error
    with temporary:
        aside = Path(temporary.name) / config.out_dir.name
        aside.mkdir()
        for name in (runs.CONFIG, FILE):
            shutil.copy(runs.find(config.run_dir) / name, aside)
        add_ngrams(model, make_search, vocabulary, text, validation, config.order, run["max_length"])
        runs.save_model(model, aside)
        if test is not None:
            searches = {"greedy": make_search(model)}
            translation.report(aside, vocabulary, test, searches, run["max_length"], called=config.out_dir)
        os.rename(aside, config.out_dir)


def main(argv=None):
    return run_command(add, tyro.cli(Config, args=argv))


if __name__ == "__main__":
    sys.exit(main())
