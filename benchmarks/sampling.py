"""Cached sampling of a field of codes against the loop without a cache.

Draws 640 codes for each of a batch of images from an untrained Image Transformer and an untrained PixelCNN, each twice:
with the cache of `step`, which evaluates the predictor at one position for each code, and with a whole forward pass
over all 640 positions for each code. Both loops are `vq_keras.generation.sample`, both compiled to one graph
(`tf.function` on TensorFlow, `jax.jit` on JAX), and both draw from the same numbers.

The loop without a cache is timed over its first `--uncached-codes` codes and extrapolated to all 640: its passes are
all of one size, so that each takes as long. Give 640 to time them all.

    python benchmarks/sampling.py --preset small --json sampling.json
"""

import dataclasses
import os
import pathlib
import platform
import statistics
import time
from typing import Literal

import keras
import numpy as np
import rich.table
import tyro
from keras import ops
from output import publish

from vq_keras import generation
from vq_keras.priors import ImageTransformer, PixelCNN

CODE_SHAPE = (8, 8, 10)
NUM_CODES = 256
PRESETS = {
    "small": {
        ImageTransformer: {"hidden_dim": 64, "num_heads": 4, "feed_forward_dim": 256, "block_length": 64},
        PixelCNN: {"hidden_dim": 64},
    },
    "full": {
        ImageTransformer: {"hidden_dim": 512, "num_heads": 8, "feed_forward_dim": 2048, "block_length": 256},
        PixelCNN: {"hidden_dim": 512},
    },
}


@dataclasses.dataclass
class Config:
    """What to measure."""

    preset: Literal["small", "full"] = "small"
    """Size of the predictors, six layers in both: hidden 64 and blocks of 64, or hidden 512 and blocks of 256."""
    batch: int = 16
    """Images that are sampled together."""
    repeats: int = 3
    """Timed runs of each loop; the table has their median."""
    uncached_codes: int = 32
    """Codes for which the loop without a cache is timed; 640 for all."""
    seed: int = 0
    """Seed of the weights and of the numbers that are drawn from."""
    json: pathlib.Path | None = None
    """Where to write the results as JSON, if anywhere."""


def compiled(function):
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function)


def sample_without_cache(predictor, uniforms):
    """As many codes as there are uniforms (batch, number), each from a forward pass over the whole field."""

    def step(previous, t, codes):
        places = ops.arange(codes.shape[1], dtype="int32")
        codes = ops.where(ops.equal(places, t - 1), previous[:, None], codes)
        return ops.take(predictor(codes[..., None]), t, axis=1), codes

    codes = ops.zeros((uniforms.shape[0], int(np.prod(CODE_SHAPE))), "int32")
    return generation.sample(step, codes, uniforms.shape[1], uniforms)[0]


def timed(function, uniforms, repeats):
    """The result, and the seconds of each run after one that compiles."""
    codes = ops.convert_to_numpy(function(uniforms))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        ops.convert_to_numpy(function(uniforms))
        seconds.append(time.perf_counter() - start)
    return codes, seconds


def measure(config: Config) -> dict:
    """The table's numbers; seconds are for all codes of the batch."""
    keras.utils.set_random_seed(config.seed)
    length = int(np.prod(CODE_SHAPE))
    measured = min(config.uncached_codes, length)
    return {
        "preset": config.preset,
        "backend": keras.backend.backend(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "batch": config.batch,
        "codes": length,
        "repeats": config.repeats,
        "uncached_codes_measured": measured,
        "uncached_is_extrapolated": measured < length,
        "positions_per_code": {"cached": 1, "uncached": length},
        "passes_per_code": {"cached": 1 / length, "uncached": 1},
        "predictors": {
            make.__name__: measure_predictor(make(CODE_SHAPE, NUM_CODES, num_layers=6, **sizes), config, measured)
            for make, sizes in PRESETS[config.preset].items()
        },
    }


def measure_predictor(predictor, config, measured):
    length = int(np.prod(CODE_SHAPE))
    uniforms = np.random.default_rng(config.seed).random((config.batch, length), dtype="float32")
    with_cache, cached_seconds = timed(compiled(predictor.generate), ops.convert_to_tensor(uniforms), config.repeats)
    without_cache, uncached_seconds = timed(
        compiled(lambda u: sample_without_cache(predictor, u)),
        ops.convert_to_tensor(uniforms[:, :measured]),
        config.repeats,
    )
    agreement = np.mean(with_cache.reshape(config.batch, length)[:, :measured] == without_cache)
    cached, uncached = statistics.median(cached_seconds), statistics.median(uncached_seconds) * length / measured
    return {
        "predictor": predictor.get_config(),
        "cached_seconds": cached,
        "cached_seconds_all": cached_seconds,
        "uncached_seconds": uncached,
        "uncached_seconds_all": uncached_seconds,
        "ratio": uncached / cached,
        "share_of_equal_codes": float(agreement),
    }


def table(results: dict) -> rich.table.Table:
    measured = results["uncached_codes_measured"]
    equal = (f"{name} {each['share_of_equal_codes']:.1%}" for name, each in results["predictors"].items())
    out = rich.table.Table(
        title=f"{results['codes']} codes for a batch of {results['batch']}, preset {results['preset']}, "
        f"{results['backend']} on {results['machine']}, median of {results['repeats']}",
        caption=f"The first {measured} codes of both loops that are equal: {', '.join(equal)}."
        + (f" Without cache: {measured} codes timed, extrapolated." if results["uncached_is_extrapolated"] else ""),
    )
    for column in (
        "predictor",
        "loop",
        "seconds",
        "ms a code",
        "codes/s",
        "passes a code",
        "positions a code",
        "ratio",
    ):
        out.add_column(column, justify="left" if column in ("predictor", "loop") else "right")
    for predictor, each in results["predictors"].items():
        for name, label in (("cached", "cached"), ("uncached", "without cache")):
            seconds = each[f"{name}_seconds"]
            out.add_row(
                predictor,
                label,
                f"{seconds:.2f}",
                f"{1000 * seconds / results['codes']:.2f}",
                f"{results['codes'] * results['batch'] / seconds:.0f}",
                "1" if name == "uncached" else f"1/{results['codes']}",
                str(results["positions_per_code"][name]),
                f"{seconds / each['cached_seconds']:.1f}",
            )
    return out


def main(args: list[str] | None = None) -> dict:
    config = tyro.cli(Config, args=args, description=__doc__)
    results = measure(config)
    publish(results, config.json, table(results))
    return results


if __name__ == "__main__":
    main()
