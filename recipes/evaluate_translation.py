"""Compares trained translators: BLEU, chrF, latency, throughput."""

import dataclasses
import json
import os
import sys
from pathlib import Path

import tyro

from vq_keras.errors import InputError, run_command

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Without it TensorFlow's notices hide the progress.


@dataclasses.dataclass(frozen=True)
class Config:
    """Translate a test set with each translator, and print BLEU, chrF, latency alone and throughput in batches of 32.

    A teacher is measured greedy and with 4 beams; a latent or non-autoregressive Transformer with its likeliest codes,
    length or fertilities, also refined if it has learned to, and with the best of several candidates, which the first
    teacher of the list that has its vocabulary judges, too. All are exported as SavedModels, and timed in turns in one
    process.
    """

    runs: tuple[Path, ...]
    """Folders of finished runs of recipes/train_teacher.py, recipes/train_translation.py and recipes/train_nat.py, or
    names of presets."""
    source: Path | None = None
    """Sentences to translate, one a line; the test set of numbers where not given."""
    reference: Path | None = None
    """Their translations."""
    candidates: int = 10
    """Of the latent and the non-autoregressive Transformers."""
    timed: int = 200
    """Sentences whose translation is timed."""
    json: Path | None = None
    """Where the figures go; a picture of BLEU against latency goes beside it."""


def systems(config):
    """Each way to translate by its name."""
    from vq_keras.models.parallel_transformer import ParallelTransformer
    from vq_keras.models.transformer import Transformer
    from vq_keras.search import AutoregressiveSearch, LatentSearch, ParallelSearch
    from vq_keras.training import runs
    from vq_keras.translation_evaluation import System

    if not config.runs:
        raise InputError("--runs names nothing: give folders of runs, or presets.")
    loaded = {path.name or str(path): runs.load_translator(path) for path in config.runs}
    if len(loaded) < len(config.runs):
        raise InputError("two of the runs have one name: give folders of different names.")
    of_files = [name for name, (_, _, settings) in loaded.items() if settings.get("dataset") == "files"]
    if of_files and config.source is None:
        raise InputError(f"{of_files[0]} was trained on files, not on numbers: give --source and --reference.")
    teachers = {name: run for name, run in loaded.items() if isinstance(run[0], Transformer)}
    found = {}
    for name, (model, vocabulary, settings) in loaded.items():
        rest = (vocabulary, settings["max_length"])
        if name in teachers:
            found[f"{name}, beam 4"] = System(AutoregressiveSearch(model, beams=4), *rest)
            found[f"{name}, greedy"] = System(AutoregressiveSearch(model), *rest)
            continue
        search = ParallelSearch if isinstance(model, ParallelTransformer) else LatentSearch
        found[name] = System(search(model), *rest)
        if getattr(model, "draft_share", 0):
            found[f"{name}, refined"] = System(LatentSearch(model, refinements=1), *rest)
        if getattr(model, "lengths", None) == "ctc":
            continue  # Nothing is predicted there that could have candidates.
        several = f"{name}, best of {config.candidates}"
        found[several] = System(search(model, config.candidates), *rest)
        for judge_name, (judge, its_vocabulary, _) in teachers.items():
            if its_vocabulary.fingerprint == vocabulary.fingerprint:
                found[f"{several} for {judge_name}"] = System(search(model, config.candidates, judge), *rest)
                break
    return found


def table(figures):
    """The figures for the terminal; speed-ups over the quickest beam 4 and the quickest greedy search."""
    from rich.table import Table

    result = Table("", "BLEU", "chrF", "median ms", "p95 ms", "sentences/s", "x beam 4", "x greedy")
    rivals = [
        min((row["median_ms"] for name, row in figures.items() if name.endswith(end)), default=None)
        for end in (", beam 4", ", greedy")
    ]
    for column in result.columns[1:]:
        column.justify = "right"
    for name, row in figures.items():
        ratios = ["" if rival is None else f"{rival / row['median_ms']:.2f}" for rival in rivals]
        result.add_row(
            name,
            f"{row['bleu']:.2f}",
            f"{row['chrf']:.2f}",
            f"{row['median_ms']:.1f}",
            f"{row['p95_ms']:.1f}",
            f"{row['sentences_per_s']:.1f}",
            *ratios,
        )
    return result


def check(config):
    """Raises an `InputError` for what would cost its user the time of the evaluation."""
    for name, least in (("timed", 1), ("candidates", 2)):
        if getattr(config, name) < least:
            raise InputError(f"--{name} is {getattr(config, name)}; give {least} or more.")
    if config.json is not None:
        if config.json.suffix == ".png":
            raise InputError(f"--json is {config.json}, where the picture would go: give a name that ends in .json.")
        places = [path for path in (config.json, *config.json.absolute().parents) if path.exists()]
        if config.json.is_dir() or not os.access(places[0], os.W_OK):
            raise InputError(f"--json is {config.json}, which cannot be written; give another file.")


def evaluate(config):
    if (config.source is None) != (config.reference is None):
        raise InputError("--source and --reference go together: give both, or neither for the test set of numbers.")
    check(config)
    from rich.console import Console

    from vq_keras import plots, translation_evaluation
    from vq_keras.data import number_sentences, parallel_text
    from vq_keras.training.files import replace_file

    given = config.source is not None
    pairs = parallel_text.read(config.source, config.reference) if given else number_sentences.load().test
    figures = translation_evaluation.evaluate(systems(config), *pairs, config.timed)
    # Names are long: a narrow terminal, or a file, gets whole lines rather than columns of two letters.
    answer = table(figures)
    width = Console(width=1000).measure(answer).maximum
    Console(width=max(Console().width, width)).print(answer)
    first = next(iter(figures.values()))
    print(f"BLEU {first['bleu_signature']}, chrF {first['chrf_signature']}")
    if config.json is not None:
        replace_file(config.json, (json.dumps(figures, indent=2) + "\n").encode())
        plots.quality_against_latency(config.json.with_suffix(".png"), figures)
        print(f"{config.json}, {config.json.with_suffix('.png')}")


def main(argv=None):
    return run_command(evaluate, tyro.cli(Config, args=argv))


if __name__ == "__main__":
    sys.exit(main())
