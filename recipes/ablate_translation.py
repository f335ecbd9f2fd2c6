"""Trains latent Transformers that differ in some options, all else equal, and prints their figures as one table."""

import dataclasses
import json
import os
import sys
from pathlib import Path

import tyro

from vq_keras.errors import InputError, run_command
from vq_keras.training.latent_transformer_config import LatentTransformerConfig
from vq_keras.training.training_config import option

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Without it TensorFlow's notices hide the progress.


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a latent Transformer for each variant, and compare them, as tables 3 to 5 of roy2018 do.

    Each is a run of recipes/train_translation.py in a folder of its own, named after the variant, within --run-dir; the
    same command again continues what was interrupted. The folder also gets table.json and curves.png. How far runs lie
    apart by chance is to be seen with seed=0 seed=1 seed=2.
    """

    variants: tyro.conf.Positional[tuple[str, ...]]
    """Options in which they differ from the others below, as NAME=VALUE or NAME=VALUE,NAME=VALUE: num_samples=5
    num_samples=50 num_codes=4096,bottleneck=vector_quantizer."""
    base: tyro.conf.OmitArgPrefixes[LatentTransformerConfig] = dataclasses.field(
        default_factory=lambda: LatentTransformerConfig(run_dir=Path("runs/ablation"))
    )


def configuration(variant, base):
    """That of one variant, read as the command line of recipes/train_translation.py would be."""
    names = {field.name for field in dataclasses.fields(base)} - {"run_dir"}
    arguments = []
    for part in variant.split(","):
        name, equals, value = part.partition("=")
        if name not in names or not equals or not value:
            raise InputError(
                f"the variant {variant!r} is no NAME=VALUE of options; names are {', '.join(sorted(names))}."
            )
        arguments += [option(name), value]
    # A flag has a value here, too: attend_to_source=True.
    settings = (tyro.conf.FlagConversionOff,)
    chosen = tyro.cli(LatentTransformerConfig, args=arguments, default=base, config=settings)
    return dataclasses.replace(chosen, run_dir=base.run_dir / variant)


def row(figures, last):
    """What the table shows of a run: BLEU by search, and the last interval of its history."""
    bleu = {name: found["bleu"] for name, found in figures.items()}
    return {"bleu": bleu, **{name: last[name] for name in ("val_nll", "val_nll_z", "codes_in_use", "perplexity")}}


def ablate(config):
    if not config.variants or len(set(config.variants)) < len(config.variants):
        raise InputError(f"The variants are {' '.join(config.variants)!r}; give one or more, each once.")
    configurations = {variant: configuration(variant, config.base) for variant in config.variants}
    import keras
    from rich.console import Console
    from rich.table import Column, Table

    from vq_keras import plots
    from vq_keras.training import latent_transformer, runs
    from vq_keras.training.files import replace_file

    # All of them before the first is trained.
    for each in configurations.values():
        latent_transformer.check(each)
    rows = {}
    for variant, each in configurations.items():
        figures = latent_transformer.run(each)
        rows[variant] = row(figures, runs.load_history(each.run_dir)[-1])
        keras.backend.clear_session()
    folder = config.base.run_dir
    replace_file(folder / "table.json", (json.dumps(rows, indent=2) + "\n").encode())
    plots.learning_curves(folder / "curves.png", {name: runs.load_history(folder / name) for name in rows})

    searches = list(dict.fromkeys(name for found in rows.values() for name in found["bleu"]))
    title = "BLEU of each search; of the last interval's validation nats a token and a code; codes in use"
    # Folded where the terminal is narrow: names that are cut off say nothing.
    columns = ("variant", *searches, "token", "code", "codes", "perplexity")
    table = Table(*(Column(name, overflow="fold") for name in columns), title=title)
    for variant, found in rows.items():
        bleu = [f"{found['bleu'][name]:.2f}" if name in found["bleu"] else "" for name in searches]
        nats = [f"{found[name]:.3f}" for name in ("val_nll", "val_nll_z")]
        table.add_row(variant, *bleu, *nats, f"{found['codes_in_use']:.0f}", f"{found['perplexity']:.0f}")
    Console().print(table)
    return rows


def main(argv=None):
    return run_command(ablate, tyro.cli(Config, args=argv))


if __name__ == "__main__":
    sys.exit(main())
