"""Do codebooks collapse? Every bottleneck at its defaults, on latents that make codebooks collapse.

Trains each bottleneck alone, on latents that no encoder adapts to it, and counts what it uses on fresh ones:

- gaussian: standard normal latents;
- shifted: the same, 5 standard deviations from the origin;
- imbalanced: as many tight clusters as there are codes, the rarest a thousand times rarer than the most common one;
- drifting: normal latents that turn, grow and move with the steps, as those of an encoder in training do.

Where vector-quantize-pytorch is installed (the extra `peers`), its `VectorQuantize` at its defaults sees the same
batches. A bottleneck that does not come with so many codes is left out.

    python benchmarks/collapse.py --json collapse.json
"""

import dataclasses
import os
import pathlib
import platform

import keras
import numpy as np
import rich.table
import tyro
from output import publish

from vq_keras import bottlenecks
from vq_keras.errors import InputError

DATA = ("gaussian", "shifted", "imbalanced", "drifting")
PEER = "vector-quantize-pytorch"
# The others that give codes.
OTHERS = tuple(
    name
    for name in bottlenecks.NAMES
    if name not in ("vector_quantizer", "soft_em", "gaussian", "gaussian_samples", "categorical_samples")
)


@dataclasses.dataclass
class Config:
    """What to measure."""

    data: tuple[str, ...] = DATA
    """Of gaussian, shifted, imbalanced, drifting."""
    num_codes: tuple[int, ...] = (64, 512, 4096)
    """Sizes of the codebook."""
    names: tuple[str, ...] = ("vector_quantizer", "gradient", "soft_em", *OTHERS, PEER)
    """Bottlenecks by name; gradient is vector_quantizer with that update."""
    dim: int = 8
    """Dimensions of the latents."""
    batch: int = 4096
    """Latents in a step."""
    steps: int = 300
    """Training steps."""
    seed: int = 0
    """Seed of the latents and of the bottlenecks."""
    json: pathlib.Path | None = None
    """Where to write the results as JSON, if anywhere."""


class Latents:
    """Latents of one kind; `at(progress, number)` draws some as they are at that share of the training."""

    def __init__(self, kind, num_codes, dim, seed):
        self.kind, self.dim = kind, dim
        self.modes = num_codes  # In what was drawn last: as many as one likes, but in clusters.
        self.rng = np.random.default_rng([seed, num_codes, DATA.index(kind)])
        self.places = self.rng.normal(size=(num_codes, dim))
        shares = 1000.0 ** -np.linspace(0, 1, num_codes)
        self.shares = shares / shares.sum()

    def at(self, progress, number):
        normal = self.rng.normal(size=(number, self.dim))
        if self.kind == "shifted":
            normal += 5
        elif self.kind == "imbalanced":
            # A hundredth of the distance between neighbours, or less: each cluster is a mode of its own.
            chosen = self.rng.choice(len(self.places), number, p=self.shares)
            self.modes = len(np.unique(chosen))
            normal = self.places[chosen] + 0.003 * normal
        elif self.kind == "drifting":
            angle = progress * np.pi / 2
            normal[:, :2] = normal[:, :2] @ [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
            normal = (1 + 2 * progress) * normal + 5 * progress
        return normal.astype("float32")


def of_keras(name, num_codes, config):
    """(step, encode and decode) of a bottleneck of this project, or None where it has not so many codes."""
    arguments = {"num_codes": num_codes, "seed": config.seed}
    if name == "gradient":
        layer = bottlenecks.get("vector_quantizer", update="gradient", **arguments)
    elif name == "soft_em":
        # Squared distances grow with the dimensions: as sharp for these as a temperature of 1 is for 512.
        layer = bottlenecks.get(name, temperature=config.dim / 512, **arguments)
    else:
        if name in ("finite_scalar", "residual_finite_scalar", "lookup_free", "binary_spherical"):
            del arguments["seed"]  # They draw nothing.
        try:
            layer = bottlenecks.get(name, **arguments)
        except InputError:
            return None
    if getattr(layer, "latent_dim", None) not in (None, config.dim):
        layer = bottlenecks.Projected(layer)
    inputs = keras.Input((config.dim,))
    outputs = layer(inputs)
    model = keras.Model(inputs, outputs["quantized"])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    codes = keras.Model(inputs, [outputs["codes"], outputs["quantized"]])
    return lambda batch: model.train_on_batch(batch, batch), lambda x: codes.predict(x, batch_size=4096, verbose=0)


def of_the_peer(num_codes, config):
    """The same of vector-quantize-pytorch, or None where it is not installed."""
    try:
        import torch
        from vector_quantize_pytorch import VectorQuantize
    except ImportError:
        return None
    torch.manual_seed(config.seed)
    layer = VectorQuantize(dim=config.dim, codebook_size=num_codes)

    def step(batch):
        layer.train()
        layer(torch.from_numpy(batch)[None])

    def apply(x):
        layer.eval()
        with torch.no_grad():
            parts = [layer(torch.from_numpy(part)[None])[:2] for part in np.array_split(x, max(1, len(x) // 4096))]
        return np.concatenate([ids[0] for _, ids in parts]), np.concatenate([vectors[0] for vectors, _ in parts])

    return step, apply


def measure(config: Config) -> dict:
    rows = []
    for kind in config.data:
        for num_codes in config.num_codes:
            for name in config.names:
                pair = of_the_peer(num_codes, config) if name == PEER else of_keras(name, num_codes, config)
                if pair is None:
                    continue
                step, apply = pair
                latents = Latents(kind, num_codes, config.dim, config.seed)
                for number in range(config.steps):
                    step(latents.at(number / config.steps, config.batch))
                # Enough that a code with half of its fair share is not missed.
                fresh = latents.at(1.0, max(20_000, 20 * num_codes))
                codes, quantized = apply(fresh)
                books = codes.reshape(len(codes), -1).T
                counts = [np.unique(book, return_counts=True)[1] for book in books]
                entropies = [-np.sum(each / len(codes) * np.log(each / len(codes))) for each in counts]
                rows.append(
                    {
                        "data": kind,
                        "num_codes": num_codes,
                        "bottleneck": name,
                        "codebooks": len(books),
                        "codes_in_use": float(np.mean([len(each) for each in counts])),
                        "modes": latents.modes,
                        "perplexity": float(np.mean(np.exp(entropies))),
                        "error": float(np.square(fresh - quantized).mean() / fresh.var(0).mean()),
                    }
                )
                print(rows[-1], flush=True)
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    options = {name: getattr(config, name) for name in ("dim", "batch", "steps", "seed")}
    return {"backend": keras.backend.backend(), "machine": machine, **options, "rows": rows}


def table(results: dict) -> rich.table.Table:
    out = rich.table.Table(
        title=f"{results['steps']} steps of {results['batch']} latents of {results['dim']} dimensions",
        caption="In use, perplexity: the means over the codebooks. Share: of the codes, or of the clusters where the "
        "latents have fewer. Error: mean squared, over the variance of the latents.",
    )
    for column in ("latents", "codes", "bottleneck", "in use", "share", "perplexity", "error"):
        out.add_column(column, justify="left" if column in ("latents", "bottleneck") else "right")
    for row in results["rows"]:
        out.add_row(
            row["data"],
            str(row["num_codes"]),
            row["bottleneck"],
            f"{row['codes_in_use']:.0f}",
            f"{min(1, row['codes_in_use'] / min(row['num_codes'], row['modes'])):.1%}",
            f"{row['perplexity']:.0f}",
            f"{row['error']:.4f}",
        )
    return out


def main(args: list[str] | None = None) -> dict:
    config = tyro.cli(Config, args=args, description=__doc__)
    results = measure(config)
    publish(results, config.json, table(results))
    return results


if __name__ == "__main__":
    main()
