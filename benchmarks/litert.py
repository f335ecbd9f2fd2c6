"""Translators in LiteRT, float32 and int8, against SavedModels and CTranslate2: latency, and the same translations.

First untrained models of d = 512 and 32,000 tokens, as in benchmarks/translation.py: all write the same number of
tokens from the same source, whatever their weights say. Then, with `--source` and `--reference`, trained ones on a test
set: how many translations are not those of the SavedModel, BLEU, and the latency of a sentence, tokenised. Batches are
one sentence. In each round every system is called once, so that what else the machine does hits all alike.

    python benchmarks/litert.py --source test_2016_flickr.en.gz --reference test_2016_flickr.de.gz --json litert.json
"""

import dataclasses
import os
import pathlib
import platform
import statistics
import tempfile
import time
from importlib.util import find_spec

import keras
import numpy as np
import rich.progress
import rich.table
import tyro
from output import publish
from translation import engine_of, latents_of, make_model, search_of, slots_of

from vq_keras import ctranslate2_model, litert_model
from vq_keras.data import parallel_text
from vq_keras.data.vocabulary import EOS
from vq_keras.models.transformer import Transformer
from vq_keras.search import LENGTH_PENALTY, MORE_TOKENS, graph_function
from vq_keras.training import runs
from vq_keras.translation_quality import quality
from vq_keras.translation_signatures import searches
from vq_keras.translator import Translator

WEIGHTS = ("float32", "int8")


@dataclasses.dataclass
class Config:
    """What to measure."""

    teachers: tuple[str, ...] = ("12+1",)
    """Untrained autoregressive models, by their names in benchmarks/translation.py."""
    latent: tuple[str, ...] = (
        "latent 6+6+6, n_c = 3 (roy2018)",
        "latent 12+1+2, n_c = 3",
        "latent 12+1+2, n_c = 3, ctc",
    )
    """Untrained latent Transformers, likewise."""
    parallel: tuple[str, ...] = ("no codes 12+2, ctc, 4-grams",)
    """Untrained Transformers without codes, likewise."""
    source_tokens: int = 25
    """Tokens of their source."""
    target_tokens: int = 32
    """Tokens of their target."""
    vocabulary_size: int = 32_000
    """Tokens in their vocabulary."""
    repeats: int = 20
    """Timed rounds; the tables have medians."""
    runs: tuple[str, ...] = ("multi30k-en-de-latent", "multi30k-en-de-teacher")
    """Trained models: folders of runs, or presets."""
    beams: tuple[int, ...] = (1,)
    """Searches of those that are autoregressive: 1 is greedy."""
    source: pathlib.Path | None = None
    """Test set of the trained ones, a sentence a line, plain or gzip."""
    reference: pathlib.Path | None = None
    """Its translations."""
    timed: int = 100
    """Sentences of it that are timed."""
    threads: int = 1
    """Of each engine."""
    seed: int = 0
    """Of weights and source."""
    json: pathlib.Path | None = None
    """Where to write the results as JSON, if anywhere."""


class Served:
    """A function of sources after a round trip through a SavedModel."""

    def __init__(self, function, shape, folder):
        import tensorflow as tf

        archive = keras.export.ExportArchive()
        archive.add_endpoint("translate", function, [tf.TensorSpec(shape, "int32", name="source")])
        archive.write_out(str(folder), verbose=False)
        self._loaded = tf.saved_model.load(str(folder))

    def predict_on_batch(self, source):
        found = self._loaded.signatures["translate"](source=keras.ops.convert_to_tensor(source))
        return {name: value.numpy() for name, value in found.items()}


class Engine:
    """A trained `Transformer` in CTranslate2."""

    def __init__(self, folder, vocabulary, weights, beams, threads):
        import ctranslate2

        self._beams = beams
        self._translator = ctranslate2.Translator(str(folder), intra_threads=threads, compute_type=weights)
        self._pieces = vocabulary.pieces
        self._ids = {piece: number for number, piece in enumerate(self._pieces)}

    def predict_on_batch(self, source):
        rows = [[self._pieces[number] for number in row if number > EOS] for row in source]
        limits = {"max_batch_size": 0, "max_decoding_length": source.shape[1] + MORE_TOKENS}
        # Over the length to the power of the penalty, where ours has (5 + length) / 6.
        found = self._translator.translate_batch(
            rows, beam_size=self._beams, length_penalty=LENGTH_PENALTY, return_scores=True, **limits
        )
        tokens = np.zeros((len(rows), source.shape[1] + MORE_TOKENS), "int32")
        for row, each in zip(tokens, found, strict=True):
            row[: len(each.hypotheses[0])] = [self._ids[piece] for piece in each.hypotheses[0]]
        return {"tokens": tokens, "scores": np.array([each.scores[0] for each in found])}


def untrained(config: Config, folder) -> list[dict]:
    """A row for each system: milliseconds of a call."""
    keras.utils.set_random_seed(config.seed)
    systems = {}
    for name in config.teachers:
        model = make_model(name, config.vocabulary_size)
        systems |= both_engines(name, model, search_of(model, config.target_tokens, beams=1), config, folder)
        for weights in WEIGHTS:
            engine = engine_of(model, config.target_tokens, 1, folder, weights)
            if engine:
                systems[name, "CTranslate2", weights] = engine
    for name in config.latent:
        model = make_model(name, config.vocabulary_size)
        systems |= both_engines(name, model, latents_of(model, config.target_tokens), config, folder)
    for name in config.parallel:
        model = make_model(name, config.vocabulary_size)
        systems |= both_engines(name, model, slots_of(model), config, folder)
    source = np.random.default_rng(config.seed).integers(3, config.vocabulary_size, (1, config.source_tokens))
    source[:, -1] = EOS
    return timed(systems, [source.astype("int32")] * config.repeats, config.teachers)


def both_engines(name, model, function, config, folder):
    """The function as a SavedModel and in LiteRT, by name, engine and weights."""

    def translate(source):
        return {"tokens": keras.ops.reshape(function(source), (1, -1)), "scores": keras.ops.zeros((1,))}

    served = Served(translate, (1, config.source_tokens), folder / f"{name}-served")
    systems = {(name, "SavedModel", "float32"): served.predict_on_batch}
    for weights in WEIGHTS:
        path = folder / f"{name}-{weights}.tflite"
        signatures = {"translate": (translate, config.source_tokens)}
        path.write_bytes(litert_model.convert(signatures, model.embedding, weights == "int8"))
        search = litert_model.LiteRTSearch(path, config.threads)
        systems[name, "LiteRT", weights] = search.predict_on_batch
    return systems


def trained(config: Config, folder) -> list[dict]:
    """A row for each system, with BLEU and the number of translations that are not those of the SavedModel."""
    pairs = parallel_text.read(config.source, config.reference)
    translators, autoregressive = {}, []
    for run in config.runs:
        model, vocabulary, settings = runs.load_translator(run)
        rest = (vocabulary, settings["max_length"])
        is_autoregressive = isinstance(model, Transformer)
        engine = folder / f"{pathlib.Path(run).name}-engine"  # A run is a path.
        if is_autoregressive and find_spec("ctranslate2"):
            ctranslate2_model.write(engine, model, vocabulary)
        for beams in config.beams if is_autoregressive else (1,):
            name = f"{run}, {beams} beams" if beams > 1 else str(run)
            stem = f"{pathlib.Path(run).name}-{beams}"
            more = {"beams": beams} if beams > 1 else {}
            search = list(searches(model, **more).values())[beams > 1]
            served = Served(graph_function(search), (None, None), folder / stem)
            translators[name, "SavedModel", "float32"] = Translator(served, *rest)
            for weights in WEIGHTS:
                path = folder / f"{stem}-{weights}.tflite"
                litert_model.write(path, litert_model.search_of(model, **more), *rest, quantize=weights == "int8")
                translators[name, "LiteRT", weights] = litert_model.load(path, config.threads)
            if is_autoregressive:
                autoregressive.append(name)
            if engine.exists():
                for weights in WEIGHTS:
                    system = Engine(engine, vocabulary, weights, beams, config.threads)
                    translators[name, "CTranslate2", weights] = Translator(system, *rest)
    some = [[sentence] for sentence in pairs.sources[: config.timed]]
    rows = timed({key: each.translate for key, each in translators.items()}, some, autoregressive)
    texts = {key: [each.text for each in translators[key].translate(pairs.sources)] for key in translators}
    for row, (key, found) in zip(rows, texts.items(), strict=True):
        expected = texts[key[0], "SavedModel", "float32"]
        row["other"] = sum(a != b for a, b in zip(found, expected, strict=True))
        row["bleu"] = quality(found, pairs.targets)["bleu"]
        row["sentences"] = len(found)
    return rows


def timed(systems, inputs, autoregressive) -> list[dict]:
    """A row for each system, by name, engine and weights, of its calls with the inputs.

    `autoregressive` are the names of those that are.
    """
    seconds = {key: [] for key in systems}
    # The first two calls compile and settle.
    for each in rich.progress.track([*inputs[:2], *inputs], "timing", transient=True):
        for key, system in systems.items():
            start = time.perf_counter()
            system(each)
            seconds[key].append(1e3 * (time.perf_counter() - start))
    return [
        {
            "system": name,
            "autoregressive": name in autoregressive,
            "engine": engine,
            "weights": weights,
            "ms": statistics.median(each[2:]),
            "ms_all": each[2:],
        }
        for (name, engine, weights), each in seconds.items()
    ]


def table(title: str, rows: list[dict]) -> rich.table.Table:
    """Ratios are to the SavedModel of the same model, and to the quickest autoregressive system."""
    out = rich.table.Table(title=f"{title}: {platform.machine()}, {os.cpu_count()} cores, medians")
    columns = ("system", "engine", "weights", "ms", "x SavedModel", "x best AR", "other translations", "BLEU")
    for column in columns:
        out.add_column(column, justify="left" if column in columns[:3] else "right")
    own = {row["system"]: row["ms"] for row in rows if row["engine"] == "SavedModel"}
    best = min((row["ms"] for row in rows if row["autoregressive"]), default=None)
    for row in rows:
        cells = [row["system"], row["engine"], row["weights"], f"{row['ms']:.1f}"]
        cells += [f"{own[row['system']] / row['ms']:.2f}", f"{best / row['ms']:.2f}" if best else ""]
        if "bleu" in row:
            cells += [f"{row['other']} of {row['sentences']}", f"{row['bleu']:.2f}"]
        out.add_row(*cells)
    return out


def main(args: list[str] | None = None) -> dict[str, list[dict]]:
    config = tyro.cli(Config, args=args, description=__doc__)
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(config.threads)
    os.environ["OMP_NUM_THREADS"] = str(config.threads)  # What `engine_of` gives its engine.
    results = {}
    for name, measure in (("untrained", untrained), ("trained", trained)):
        if name == "trained" and config.source is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            results[name] = measure(config, pathlib.Path(folder))
    publish(results, config.json, *(table(name, rows) for name, rows in results.items()), width=140)
    return results


if __name__ == "__main__":
    main()
