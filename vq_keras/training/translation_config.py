"""The command line that the recipes of translators have in common; light to import, so that --help is quick."""

import dataclasses
from pathlib import Path
from typing import ClassVar

from vq_keras.errors import InputError
from vq_keras.training.training_config import TrainingConfig


@dataclasses.dataclass(frozen=True)
class TranslationConfig(TrainingConfig):
    """What the recipes of translators ask for in common."""

    COUNTS: ClassVar = (*TrainingConfig.COUNTS, "tokens_per_batch", "warmup_steps", "average")
    PLACES: ClassVar = (*TrainingConfig.PLACES, "train", "validation", "test", "vocabulary")

    dataset: str = "numbers"
    """Pairs of sentences: numbers (English numbers, dates and times in German, made on the spot), files, or a set of
    TensorFlow Datasets with its configuration, such as wmt14_translate/de-en."""
    train: tuple[Path, Path] | None = None
    """For files: the file of sources and that of targets to train on, a sentence a line, maybe compressed by gzip."""
    validation: tuple[Path, Path] | None = None
    """The same, to watch the training by."""
    test: tuple[Path, Path] | None = None
    """The same, to report on."""
    data_dir: Path | None = None
    """For TensorFlow Datasets: where they are."""
    languages: tuple[str, str] = ("en", "de")
    """For TensorFlow Datasets: of sources and targets."""
    run_dir: Path | None = None
    """The run's folder; runs/DATASET-ARCHITECTURE where not given, with the bottleneck where there is one."""

    vocabulary: Path | None = None
    """A vocabulary to use, such as a teacher's; one is trained on the training pairs where not given."""
    vocabulary_size: int | None = None
    """Subwords of the vocabulary where one is trained; 1000 where not given."""
    max_length: int = 100
    """Pairs with more subwords on a side are not trained on; longer sources are cut in translation."""

    dropout: float = 0.0
    """Of embeddings and residual branches; natural language needs 0.1, a few ten thousand sentences of it 0.3."""
    subword_dropout: float = 0.0
    """Share of the merges of subwords that sources are trained without, in each of ten copies others (BPE-dropout,
    whose paper has 0.1)."""
    steps: int = 1500
    """Training steps."""
    tokens_per_batch: int = 2048
    """Subwords in a step, with padding, of sources or targets, whichever are more."""
    learning_rate: float = 5e-3
    """Peak of Adam's learning rate."""
    warmup_steps: int = 300
    """Steps over which the learning rate rises to its peak."""
    schedule: str = "rsqrt"
    """What follows: rsqrt (inverse square root of the step) or exponential (to a tenth at the end of the run)."""
    average: int = 5
    """The model is the mean of its weights in so many last checkpoints, one each --interval."""
    interval: int = 50
    """Steps from one row of history and checkpoint to the next."""

    def check(self) -> None:
        super().check()
        if not 0 <= self.dropout < 1:
            raise InputError(f"--dropout is {self.dropout}; give a share from 0 up to, not including, 1.")
        if not 0 <= self.subword_dropout < 1:
            raise InputError(
                f"--subword-dropout is {self.subword_dropout}; give a share from 0 up to, not including, 1."
            )
        checkpoints = -(-self.steps // self.interval)
        if self.average > checkpoints:
            raise InputError(
                f"--average is {self.average}, but the run has {checkpoints} checkpoints: "
                "give fewer, or a shorter --interval."
            )
