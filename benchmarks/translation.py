"""Latency of untrained translators of one width and vocabulary: token by token, by beams, through latents, at once.

All write the same number of target tokens from the same source, whatever their weights say: the autoregressive ones
search without an end, the latent ones get the number of codes. Those without codes alone have as many slots as their
source asks for, twice its tokens and 8, whatever --target-tokens are. Each is compiled, without XLA (`graph`, as TF
Serving runs it) and with it (`xla`); on JAX always with. In each round every system is called once, so that what else
the machine does hits all alike. Where ctranslate2 is installed, its engine runs the same autoregressive models.

    python benchmarks/translation.py --json translation.json
    python benchmarks/translation.py --batches 1 2 4 8 16 32 64 --modes graph --repeats 5
    python benchmarks/translation.py --target-tokens 8 16 32 64 128 256 --modes graph --repeats 5
    python benchmarks/translation.py --batches 1 32 --parts --modes graph
"""

import dataclasses
import os
import pathlib
import platform
import statistics
import tempfile
import time

import keras
import numpy as np
import rich.progress
import rich.table
import tyro
from keras import ops
from output import publish

from vq_keras import bottlenecks, generation
from vq_keras.data.vocabulary import EOS
from vq_keras.layers import NGrams
from vq_keras.models.latent_transformer import LatentTransformer
from vq_keras.models.parallel_transformer import ParallelTransformer
from vq_keras.models.transformer import Transformer

SIZES = {"hidden_dim": 512, "num_heads": 8, "feed_forward_dim": 2048}
NUM_CODES = 4096
# Encoder and decoder layers.
AUTOREGRESSIVE = {"6+6": (6, 6), "12+1": (12, 1)}
# Those of encoder, latent predictor and decoder, the halvings of the target, the decoder's kind, and the order of the
# n-grams that choose among what its slots say.
LATENT = {
    "latent 6+6+6, n_c = 3 (roy2018)": (6, 6, 6, 3, "causal_shifted", 0),
    "latent 6+6+6, n_c = 4": (6, 6, 6, 4, "causal_shifted", 0),
    "latent 12+1+2, n_c = 3": (12, 1, 2, 3, "causal_shifted", 0),
    "latent 12+2+2, n_c = 4": (12, 2, 2, 4, "causal_shifted", 0),
    "latent 12+1+2, n_c = 3, ctc": (12, 1, 2, 3, "ctc", 0),
    "latent 12+1+2, n_c = 2, ctc": (12, 1, 2, 2, "ctc", 0),
    "latent 12+1+2, n_c = 3, ctc, 4-grams": (12, 1, 2, 3, "ctc", 4),
}
# Encoder and decoder layers, and the order of the n-grams.
PARALLEL = {"no codes 12+2, ctc": (12, 2, 0), "no codes 12+2, ctc, 4-grams": (12, 2, 4)}


@dataclasses.dataclass
class Config:
    """What to measure."""

    batches: tuple[int, ...] = (1,)
    """Sentences at once."""
    source_tokens: int = 25
    """Tokens of each source."""
    target_tokens: tuple[int, ...] = (32,)
    """Tokens of each target, multiples of 8; for n_c = 4, 16 tokens a code, the number is rounded up."""
    vocabulary_size: int = 32_000
    """Tokens in the vocabulary."""
    modes: tuple[str, ...] = ("graph", "xla")
    """Compiled how: graph, xla."""
    repeats: int = 20
    """Timed rounds; the table has medians."""
    beams: int = 4
    """Of the beam searches."""
    threads: int | None = None
    """Of TensorFlow within an operation, and of CTranslate2; as many as there are cores where not given."""
    parts: bool = False
    """Whether latent Transformers are also timed as far as the memory and the codes: where the time goes."""
    seed: int = 0
    """Of the weights and the source."""
    json: pathlib.Path | None = None
    """Where to write the results as JSON, if anywhere."""


def make_model(name, vocabulary_size):
    """A model by its name above."""
    if name in AUTOREGRESSIVE:
        return Transformer(vocabulary_size, *AUTOREGRESSIVE[name], **SIZES)
    if name in PARALLEL:
        *layers, order = PARALLEL[name]
        model = ParallelTransformer(vocabulary_size, "ctc", *layers, **SIZES)
    else:
        *layers, steps, decoder, order = LATENT[name]
        bottleneck = bottlenecks.VectorQuantizer(NUM_CODES, initializer="normal")
        model = LatentTransformer(vocabulary_size, bottleneck, steps, *layers, decoder=decoder, **SIZES)
    if order:
        # Of noise: how many n-grams there are hardly matters to how long it takes to look one up.
        text = np.random.default_rng(0).integers(2, vocabulary_size, (1000, 25))
        model.ngrams = NGrams.fit(text.tolist(), vocabulary_size, order)
    return model


def compiled(function, mode):
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, jit_compile=mode == "xla")


def search_of(model, length, beams):
    """Source to tokens, `length` of them whatever they are."""

    def search(source):
        context, rows = model.encode(source), source.shape[0]
        start, cache = ops.full((rows,), EOS, dtype="int32"), model.init_cache(rows * beams, length)

        def step(previous, position, cache):
            return model.step(previous, position, cache, context)

        if beams == 1:
            return generation.greedy(step, cache, length, start)[0]
        return generation.beam_search(step, cache, length, start, beams, best=1)[0]

    return search


def latents_of(model, length, until="tokens"):
    """Source to tokens, or as far as "memory" or "codes", as many as `length` tokens have."""
    num_latents = -(-length // 2**model.num_compress_steps)

    def search(source):
        context = model.encode(source)
        if until == "memory":
            return context["memory"]
        numbers = ops.full((source.shape[0],), num_latents, dtype="int32")
        codes, _ = model.predict_latents(context, numbers, num_latents)
        return codes if until == "codes" else model.decode(context, codes)["tokens"]

    return search


def slots_of(model):
    """Source to tokens without codes."""

    def search(source):
        context = model.encode(source)
        copies, _ = model.propose(context, 1)
        return model.decode(context, copies)["tokens"]

    return search


def engine_of(model, length, beams, directory, compute_type="default"):
    """CTranslate2's engine with the model's weights, or None where it is not installed."""
    try:
        import ctranslate2
    except ImportError:
        return None
    from vq_keras import ctranslate2_model

    path = pathlib.Path(directory) / f"{model.num_encoder_layers}+{model.num_decoder_layers}"
    if not path.exists():
        ctranslate2_model.write(path, model, _Numbers(model.vocabulary_size))
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count()))
    translator = ctranslate2.Translator(str(path), inter_threads=1, intra_threads=threads, compute_type=compute_type)

    def search(source):
        rows = [[str(token) for token in row[:-1]] for row in source]
        limits = {"min_decoding_length": length, "max_decoding_length": length, "max_batch_size": 0}
        return translator.translate_batch(rows, beam_size=beams, **limits)

    return search


class _Numbers:
    """A vocabulary whose pieces are their numbers, for the engine."""

    def __init__(self, size):
        self.size = size
        self.proto = b""
        self.pieces = [str(number) for number in range(size)]
        self.pieces[EOS] = "</s>"

    def save(self, path):
        pathlib.Path(path).write_bytes(b"")


def measure(config: Config) -> list[dict]:
    """A row for each system, mode, batch and length; milliseconds of a call."""
    keras.utils.set_random_seed(config.seed)
    teachers, latent, parallel = (
        {name: make_model(name, config.vocabulary_size) for name in kind} for kind in (AUTOREGRESSIVE, LATENT, PARALLEL)
    )
    rng = np.random.default_rng(config.seed)
    modes = ("xla",) if keras.backend.backend() == "jax" else config.modes
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        for batch in config.batches:
            source = rng.integers(3, config.vocabulary_size, (batch, config.source_tokens)).astype("int32")
            source[:, -1] = EOS
            for length in config.target_tokens:
                systems = {}
                for name, model in teachers.items():
                    for beams in (config.beams, 1):
                        label = f"{name} {'greedy' if beams == 1 else f'beam {beams}'}"
                        for mode in modes:
                            systems[label, mode] = compiled(search_of(model, length, beams), mode)
                        engine = engine_of(model, length, beams, directory)
                        if engine:
                            systems[label, "ctranslate2"] = engine
                for name, model in latent.items():
                    for mode in modes:
                        for until in ("memory", "codes") if config.parts else ():
                            systems[f"{name}, to its {until}", mode] = compiled(latents_of(model, length, until), mode)
                        systems[name, mode] = compiled(latents_of(model, length), mode)
                for name, model in parallel.items():
                    for mode in modes:
                        systems[name, mode] = compiled(slots_of(model), mode)
                rows += timed(systems, source, length, config.repeats)
    return rows


def timed(systems, source, length, repeats):
    tensor = ops.convert_to_tensor(source)
    seconds = {key: [] for key in systems}
    description = f"batch {len(source)}, {length} tokens"
    for number in rich.progress.track(range(repeats + 2), description, transient=True):
        for (name, mode), search in systems.items():
            start = time.perf_counter()
            found = search(source if mode == "ctranslate2" else tensor)
            if mode != "ctranslate2":
                ops.convert_to_numpy(found)
            if number >= 2:  # The first call compiles, the second settles.
                seconds[name, mode].append(time.perf_counter() - start)
    return [
        {
            "system": name,
            "mode": mode,
            "batch": len(source),
            "target_tokens": length,
            "ms": 1e3 * statistics.median(each),
            "ms_all": [1e3 * one for one in each],
        }
        for (name, mode), each in seconds.items()
    ]


def table(rows: list[dict], beams: int) -> rich.table.Table:
    """Ratios are to the quickest beam and greedy search of the 6+6 model of ours, in whatever mode."""
    out = rich.table.Table(
        title=f"d = 512, {keras.backend.backend()} on {platform.machine()}, {os.cpu_count()} cores: medians"
    )
    for column in ("batch", "tokens", "system", "mode", "ms", f"x beam {beams}", "x greedy"):
        out.add_column(column, justify="left" if column in ("system", "mode") else "right")
    for row in rows:
        ratios = []
        for rival in (f"6+6 beam {beams}", "6+6 greedy"):
            best = min(
                other["ms"]
                for other in rows
                if other["system"] == rival
                and other["mode"] != "ctranslate2"
                and (other["batch"], other["target_tokens"]) == (row["batch"], row["target_tokens"])
            )
            ratios.append(f"{best / row['ms']:.2f}")
        cells = (str(row["batch"]), str(row["target_tokens"]), row["system"], row["mode"], f"{row['ms']:.1f}")
        out.add_row(*cells, *ratios)
    return out


def main(args: list[str] | None = None) -> list[dict]:
    config = tyro.cli(Config, args=args, description=__doc__)
    if config.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(config.threads)  # What `engine_of` gives its engine.
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.threading.set_intra_op_parallelism_threads(config.threads)
    rows = measure(config)
    publish(rows, config.json, table(rows, config.beams))
    return rows


if __name__ == "__main__":
    main()
