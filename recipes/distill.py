"""Translates a training set with a trained teacher: the targets that faster models learn from."""

import dataclasses
import os
import sys
from pathlib import Path

import tyro

from vq_keras.errors import InputError, run_command

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Without it TensorFlow's notices hide the progress.


@dataclasses.dataclass(frozen=True)
class Config:
    """Sequence-level distillation (Kim and Rush 2016): replace a training set's targets by a teacher's translations.

    Writes source.txt and target.txt, a sentence a line, and the teacher's vocabulary.model. The same command again
    continues where a killed one was.
    """

    teacher: tyro.conf.Positional[Path]
    """The run of recipes/train_teacher.py."""
    output: tyro.conf.Positional[Path]
    """The folder to write."""
    dataset: str = "numbers"
    """Whose training sources: numbers, or a set of TensorFlow Datasets with its configuration."""
    source: Path | None = None
    """A file of sources, a sentence a line, maybe compressed by gzip, in place of a data set."""
    data_dir: Path | None = None
    """For TensorFlow Datasets: where they are."""
    languages: tuple[str, str] = ("en", "de")
    """For TensorFlow Datasets: of sources and targets."""
    beams: int = 4
    """Of the beam search; 1 for greedy."""
    length_penalty: float = 0.6
    """Of the beam search."""
    shard: int = 2000
    """Sentences from one saved piece to the next."""


def run(config):
    from vq_keras import distillation
    from vq_keras.data import parallel_text, translation
    from vq_keras.data.vocabulary import FILE
    from vq_keras.search import AutoregressiveSearch
    from vq_keras.training import runs
    from vq_keras.translator import Translator

    sources = None if config.source is None else parallel_text.read_side(config.source)
    model, vocabulary, teacher = runs.load_translator(config.teacher)
    if sources is None:
        if "files" in (config.dataset, teacher.get("dataset")):
            raise InputError(f"{config.teacher} was trained on files: give --source, the sentences to translate.")
        data = translation.load(config.dataset, data_dir=config.data_dir, languages=config.languages)
        sources = data.train.sources
    search = AutoregressiveSearch(model, config.beams, config.length_penalty)
    # Large batches: nobody waits for a single sentence.
    translator = Translator(search, vocabulary, teacher["max_length"], 4096)
    settings = {"beams": config.beams, "length_penalty": config.length_penalty}
    distillation.distill(translator, sources, config.output, config.shard, settings)
    vocabulary.save(config.output / FILE)
    print(f"source.txt, target.txt and {FILE}: {config.output}")


def main(argv=None):
    return run_command(run, tyro.cli(Config, args=argv))


if __name__ == "__main__":
    sys.exit(main())
