"""Trains an autoregressive Transformer: the teacher of the latent-variable translators, and their rival."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import ClassVar

import tyro

from vq_keras.errors import run_command
from vq_keras.training.translation_config import TranslationConfig

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Without it TensorFlow's notices hide the progress.


@dataclasses.dataclass(frozen=True)
class Config(TranslationConfig):
    """Train an autoregressive Transformer to translate, and report BLEU on the test set, greedy and with 4 beams.

    Writes the run's folder: model.keras, vocabulary.model, metrics.json, the test set's translations, history.csv,
    curves.png, TensorBoard logs and checkpoints. The same command again continues a run that was interrupted.
    """

    PLACES: ClassVar = (*TranslationConfig.PLACES, "start")

    architecture: str = "small"
    """small (4 + 4 layers of width 128), small_shallow_decoder (12 + 1 of 128), base (6 + 6 of 512), shallow_decoder
    (12 + 1 of 512)."""
    label_smoothing: float = 0.1
    """Share of a label that is spread over the vocabulary."""
    start: Path | None = None
    """The run of a Transformer of the same width and vocabulary (--vocabulary RUN/vocabulary.model) that this one
    starts from. Where it has more layers or fewer, layers are left out or taken twice."""


def resolve(config):
    """The configuration with everything filled in that depends on other choices."""
    from vq_keras.models.sizes import sizes_of

    config.check()
    sizes_of("Transformer", config.architecture)
    default = Path("runs") / f"{config.dataset.replace('/', '-')}-{config.architecture}"
    return dataclasses.replace(config, run_dir=config.run_dir or default)


def run(config):
    config = resolve(config)
    from vq_keras.models.sizes import sizes_of
    from vq_keras.models.transformer import Transformer
    from vq_keras.search import AutoregressiveSearch
    from vq_keras.training import runs, translation
    from vq_keras.training.warm_start import continue_from

    corpus = translation.load(config)
    start = None if config.start is None else runs.load_start(config.start, corpus.vocabulary, Transformer)
    sizes = sizes_of("Transformer", config.architecture) | {
        "dropout": config.dropout,
        "label_smoothing": config.label_smoothing,
    }

    def make_model():
        model = Transformer(corpus.vocabulary.size, **sizes)
        if start is not None:
            continue_from(model, start)
        return model

    model = translation.train(config, corpus, make_model, AutoregressiveSearch)
    searches = {"greedy": AutoregressiveSearch(model), "beam4": AutoregressiveSearch(model, beams=4)}
    translation.report(config.run_dir, corpus.vocabulary, corpus.data.test, searches, config.max_length)


def main(argv=None):
    return run_command(run, tyro.cli(Config, args=argv))


if __name__ == "__main__":
    sys.exit(main())
