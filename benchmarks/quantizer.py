"""One training step of the bottlenecks against the same step written with one-hot matrices.

A step is the forward pass in training: codes are assigned, their vectors looked up, and counts, sums and embeddings
moved, with initialisation and restarts as they are by default; compiled to one graph (`tf.function` on TensorFlow,
`jax.jit` on JAX), no gradients. The plain one is what tutorials show: all latents x codes distances at once, a one-hot
matrix of the same size, and matrix products with it for the lookup and for the sums; for soft EM the mean of one such
matrix for each of the draws that the framework's own categorical sampler makes. It neither initialises on the data
nor restarts codes. Where vector-quantize-pytorch is installed (the extra `peers`), its `VectorQuantize` at its
defaults takes the same steps of hard assignments in the same run. The rate of a large matrix product stands beside
that of the steps.

    python benchmarks/quantizer.py --json quantizer.json
"""

import dataclasses
import os
import pathlib
import platform
import statistics
import time

import keras
import numpy as np
import rich.table
import tyro
from keras import ops
from output import publish

from vq_keras.bottlenecks import get

BOTTLENECKS = {"vector_quantizer": {}, "soft_em": {"num_samples": 10}}
SIZES = ((512, 64), (4096, 64), (4096, 512), (65536, 64))


# Elements of a matrix of latents x codes: soft EM holds several, of 1 GB each.
LARGEST_ONE_HOT = 2**28


@dataclasses.dataclass
class Config:
    """What to measure."""

    latents: int = 8192
    """Latents in a step."""
    sizes: tuple[tuple[int, int], ...] = SIZES
    """Number of codes and dimensions of each measurement."""
    repeats: int = 11
    """Timed steps of each kind, each behind one that is not timed; the table has their median."""
    seed: int = 0
    """Seed of the latents and of the draws."""
    json: pathlib.Path | None = None
    """Where to write the results as JSON, if anywhere."""


class OneHotQuantizer(keras.layers.Layer):
    """The plain step: hard assignments, or with `num_samples` the mean of as many draws."""

    def __init__(self, num_codes, num_samples=None, decay=0.99, epsilon=1e-5, seed=None):
        super().__init__()
        self.num_codes, self.num_samples, self.decay, self.epsilon = num_codes, num_samples, decay, epsilon
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, shape):
        self.embeddings = self.add_weight(shape=(self.num_codes, shape[-1]), initializer="normal", trainable=False)
        self.sums = self.add_weight(shape=(self.num_codes, shape[-1]), initializer="zeros", trainable=False)
        self.counts = self.add_weight(shape=(self.num_codes,), initializer="ones", trainable=False)

    def call(self, latents, training=None):
        embeddings = ops.convert_to_tensor(self.embeddings)
        distances = (
            ops.sum(latents**2, axis=1, keepdims=True)
            - 2 * ops.matmul(latents, ops.transpose(embeddings))
            + ops.sum(embeddings**2, axis=1)
        )
        if self.num_samples is None:
            assigned = ops.one_hot(ops.argmin(distances, axis=1), self.num_codes)
        else:
            draws = keras.random.categorical(-distances, self.num_samples, seed=self.seed_generator)
            assigned = sum(ops.one_hot(draws[:, i], self.num_codes) for i in range(self.num_samples))
            assigned = assigned / self.num_samples
        quantized = ops.matmul(assigned, embeddings)
        self.counts.assign(self.decay * self.counts + (1 - self.decay) * ops.sum(assigned, axis=0))
        self.sums.assign(self.decay * self.sums + (1 - self.decay) * ops.matmul(ops.transpose(assigned), latents))
        total = ops.sum(self.counts)
        smoothed = (self.counts + self.epsilon) / (total + self.num_codes * self.epsilon) * total
        self.embeddings.assign(self.sums / smoothed[:, None])
        return {"quantized": quantized}


def compiled_step(layer, latents):
    """A function of no arguments that takes a training step and waits for its end."""
    layer.build(latents.shape)
    if keras.backend.backend() == "jax":
        import jax

        @jax.jit
        def run(state, latents):
            return layer.stateless_call([], state, latents, training=True)

        state = [variable.value for variable in layer.non_trainable_variables]

        def step():
            nonlocal state
            _, state = jax.block_until_ready(run(state, latents))

        return step
    import tensorflow as tf

    run = tf.function(lambda latents: layer(latents, training=True)["quantized"])
    return lambda: run(latents).numpy()


def peer_step(num_codes, dim, values):
    """The same of vector-quantize-pytorch, or None where it is not installed."""
    try:
        import torch
        from vector_quantize_pytorch import VectorQuantize
    except ImportError:
        return None
    torch.set_num_threads(os.cpu_count())
    layer = VectorQuantize(dim=dim, codebook_size=num_codes).train()
    latents = torch.from_numpy(values)[None]
    return lambda: layer(latents)


def matmul_gflops(size=2048, repeats=11):
    """GFLOP/s of a product of two square matrices."""
    matrix = ops.convert_to_tensor(np.random.default_rng(0).normal(size=(size, size)).astype("float32"))
    times = milliseconds([lambda: ops.convert_to_numpy(ops.matmul(matrix, matrix)[0, 0])], repeats)[0]
    return 2 * size**3 / statistics.median(times) / 1e6


def milliseconds(steps, repeats):
    """The times of each function, taken in turn, so that a slow moment of the machine is everyone's.

    Each timed step follows one of its own kind, as in training: behind another's, small steps take up to half as long
    again, with a pause between them, too.
    """
    for step in steps:
        for _ in range(2):  # Compiles; and initialises.
            step()
    times = [[] for _ in steps]
    for _ in range(repeats):
        for step, taken in zip(steps, times, strict=True):
            step()
            start = time.perf_counter()
            step()
            taken.append(1000 * (time.perf_counter() - start))
    return times


def measure(config: Config) -> dict:
    rows = []
    for num_codes, dim in config.sizes:
        values = np.random.default_rng(config.seed).normal(size=(config.latents, dim)).astype("float32")
        latents = ops.convert_to_tensor(values)
        for name, arguments in BOTTLENECKS.items():
            steps = {"ours": compiled_step(get(name, num_codes=num_codes, seed=config.seed, **arguments), latents)}
            if config.latents * num_codes <= LARGEST_ONE_HOT:
                plain = OneHotQuantizer(num_codes, seed=config.seed, **arguments)
                steps["one_hot"] = compiled_step(plain, latents)
            peer = peer_step(num_codes, dim, values) if name == "vector_quantizer" else None
            if peer:
                steps["peer"] = peer
            all_ms = dict(zip(steps, milliseconds(steps.values(), config.repeats), strict=True))
            ms = {kind: statistics.median(times) for kind, times in all_ms.items()}
            rows.append(
                {
                    "bottleneck": name,
                    **arguments,
                    "num_codes": num_codes,
                    "dim": dim,
                    "ms": ms,
                    "ratios": {kind: ms[kind] / ms["ours"] for kind in ms},
                    "gflops": 2 * config.latents * num_codes * dim / ms["ours"] / 1e6,
                    "ms_all": all_ms,
                }
            )
    return {
        "backend": keras.backend.backend(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_average": os.getloadavg()[0],
        "matmul_gflops": matmul_gflops(),
        "latents": config.latents,
        "repeats": config.repeats,
        "rows": rows,
    }


def table(results: dict) -> rich.table.Table:
    out = rich.table.Table(
        title=f"A training step over {results['latents']} latents, {results['backend']} on {results['machine']}, "
        f"median of {results['repeats']}",
        caption=f"GFLOP/s: of the distances' matrix product alone; a product of two 2048 x 2048 matrices has "
        f"{results['matmul_gflops']:.0f}. Peer: vector-quantize-pytorch. Load: {results['load_average']:.1f}.",
    )
    for column in ("bottleneck", "codes", "dim", "ms", "GFLOP/s", "one-hot ms", "ratio", "peer ms", "ratio"):
        out.add_column(column, justify="left" if column == "bottleneck" else "right")
    for row in results["rows"]:
        samples = f", m = {row['num_samples']}" if "num_samples" in row else ""
        others = []
        for kind in ("one_hot", "peer"):
            known = kind in row["ms"]
            others += [f"{row['ms'][kind]:.1f}", f"{row['ratios'][kind]:.1f}"] if known else ["", ""]
        out.add_row(
            row["bottleneck"] + samples,
            str(row["num_codes"]),
            str(row["dim"]),
            f"{row['ms']['ours']:.1f}",
            f"{row['gflops']:.0f}",
            *others,
        )
    return out


def main(args: list[str] | None = None) -> dict:
    config = tyro.cli(Config, args=args, description=__doc__)
    results = measure(config)
    publish(results, config.json, table(results))
    return results


if __name__ == "__main__":
    main()
