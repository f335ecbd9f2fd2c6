"""Trains a non-autoregressive Transformer: a translator that writes all words at once, the latent ones' baseline."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import ClassVar

import tyro

from vq_keras.errors import InputError, run_command
from vq_keras.training.slots_config import SlotsConfig

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Without it TensorFlow's notices hide the progress.


@dataclasses.dataclass(frozen=True)
class Config(SlotsConfig):
    """Train a non-autoregressive Transformer (Gu et al. 2018) to translate, and report BLEU on the test set.

    It is reported for the likeliest length or fertilities, and for the best of 10 and of 100 candidates, of which "ctc"
    has but one. Writes the run's folder: model.keras, vocabulary.model, metrics.json, the test set's translations,
    history.csv, curves.png, TensorBoard logs and checkpoints. The same command again continues a run that was
    interrupted.
    """

    PLACES: ClassVar = (*SlotsConfig.PLACES, "distilled", "start", "teacher")

    distilled: Path | None = None
    """What recipes/distill.py wrote: pairs to train on in place of the data's own, and the vocabulary."""
    architecture: str = "small"
    """small (4 + 4 layers of width 128), small_shallow_decoder (12 + 1 of 128), base (6 + 6 of 512), shallow_decoder
    (12 + 1 of 512)."""
    lengths: str = "classifier"
    """classifier (of the target's length, to which the source is stretched), fertility (of each source token) or ctc
    (none: tokens find their own places among more than they need, by connectionist temporal classification)."""
    start: Path | None = None
    """A run whose model this one starts from; it needs the same options and vocabulary (--vocabulary
    RUN/vocabulary.model, or --distilled by the same teacher)."""
    teacher: Path | None = None
    """The run of a teacher of the same width and vocabulary: the model starts from its embedding, encoder and decoder,
    and it chooses among the candidates of the report. Else they start at random, and the model chooses."""


def resolve(config):
    """The configuration with everything filled in that depends on other choices."""
    from vq_keras.models import parallel_transformer
    from vq_keras.models.sizes import sizes_of

    config.check()
    sizes_of("Transformer", config.architecture)
    if config.lengths not in parallel_transformer.LENGTHS:
        known = ", ".join(parallel_transformer.LENGTHS)
        raise InputError(f"--lengths is {config.lengths!r}; give one of {known}.")
    config = config.with_slots(config.lengths, f"--lengths ctc: with {config.lengths} each token has its place.")
    name = f"{config.dataset.replace('/', '-')}-{config.architecture}-nat-{config.lengths}"
    return dataclasses.replace(config, run_dir=config.run_dir or Path("runs") / name)


def aligned(corpus):
    """The corpus with the fertilities of its source tokens, as the training pairs tell them."""
    from vq_keras.data.alignment import Lexicon

    print(f"aligning the words of {len(corpus.train.sources):,} pairs")
    lexicon = Lexicon.learn(corpus.train)
    parts = {name: lexicon.with_fertilities(getattr(corpus, name)) for name in ("train", "validation")}
    return dataclasses.replace(corpus, **parts)


def run(config):
    config = resolve(config)
    from vq_keras.models.parallel_transformer import ParallelTransformer
    from vq_keras.models.sizes import sizes_of
    from vq_keras.search import ParallelSearch
    from vq_keras.training import runs, translation
    from vq_keras.training.warm_start import continue_from, start_from

    corpus = translation.load(config, config.distilled)
    teacher = None if config.teacher is None else runs.load_judge(config.teacher, corpus.vocabulary)
    start = None if config.start is None else runs.load_start(config.start, corpus.vocabulary, ParallelTransformer)
    if config.lengths == "fertility":
        corpus = aligned(corpus)
    sizes = sizes_of("Transformer", config.architecture) | {"dropout": config.dropout}

    def make_model():
        model = ParallelTransformer(corpus.vocabulary.size, config.lengths, **sizes, bigram_share=config.bigrams)
        if start is not None:
            continue_from(model, start)
        elif teacher is not None:
            start_from(model, teacher)
        return model

    columns = ("nll", "accuracy", "bigram_f1", "nll_length", "nll_fertility")
    model = translation.train(config, corpus, make_model, ParallelSearch, columns, order=config.ngrams)
    end = "" if teacher is None else "-judged"
    numbers = () if config.lengths == "ctc" else (10, 100)
    searches = {"greedy": ParallelSearch(model)}
    searches |= {f"{number}-candidates{end}": ParallelSearch(model, number, teacher) for number in numbers}
    # A hundred candidates take a hundred times the memory: small batches, the smallest that hold the longest source.
    translation.report(
        config.run_dir,
        corpus.vocabulary,
        corpus.data.test,
        searches,
        config.max_length,
        tokens_per_batch=config.max_length,
    )


def main(argv=None):
    return run_command(run, tyro.cli(Config, args=argv))


if __name__ == "__main__":
    sys.exit(main())
