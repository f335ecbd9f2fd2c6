"""How fast exported translators answer, with so many requests in flight and so many sentences in each.

Exports are SavedModels of text, run in this process through their signatures, by as many threads as there are requests
in flight: what TF Serving does without its network and its batching. In each round every system gets the same requests.
Two more questions are answered for each: what a signature costs beyond the function that was exported, and whether
memory stays flat over many requests.

    python benchmarks/serving.py --source sentences.txt --json serving.json
    python benchmarks/serving.py --source sentences.txt --in-flight 1 --batches 1 --memory-requests 20000
"""

import concurrent.futures
import dataclasses
import os
import pathlib
import platform
import statistics
import tempfile
import time

import numpy as np
import psutil
import rich.progress
import rich.table
import tyro
from output import publish

from vq_keras import saved_model, text_signatures, translation_signatures
from vq_keras.data.vocabulary import EOS
from vq_keras.training import runs
from vq_keras.translation_client import SavedModelTranslator

WARM_UP = 8


@dataclasses.dataclass
class Config:
    """What to measure."""

    source: pathlib.Path
    """Sentences to translate, one a line; requests take them in turn."""
    teacher: str = "multi30k-en-de-teacher"
    """A run's folder, or a preset: measured greedy and with 4 beams; ratios are to the greedy one."""
    parallel: tuple[str, ...] = ("multi30k-en-de-latent", "multi30k-en-de-nat")
    """Folders of runs, or presets, whose models write all words at once; memory is watched with the first."""
    in_flight: tuple[int, ...] = (1, 8, 32)
    """Requests at a time."""
    batches: tuple[int, ...] = (1, 8, 32)
    """Sentences of a request."""
    requests: int = 64
    """Requests of each round."""
    repeats: int = 3
    """Rounds; throughput is the median of them, latencies are of all their requests."""
    memory_requests: int = 0
    """Requests of one sentence over which memory is watched; 0 to leave it out."""
    json: pathlib.Path | None = None
    """Where to write the results as JSON, if anywhere."""


def exported(config, directory):
    """Each system as a translator of text, and as its function from ids beside the signature of it."""
    texts, ids = {}, {}
    for run, names in (
        (config.teacher, {"translate_beam": "teacher, beam 4", "translate": "teacher, greedy"}),
        *((run, {"translate": pathlib.Path(run).name}) for run in config.parallel),
    ):
        model, vocabulary, settings = runs.load_translator(run)
        searches = translation_signatures.searches(model)
        searches = {signature: searches[signature] for signature in names}
        folder = pathlib.Path(directory) / pathlib.Path(run).name
        signatures, resources = text_signatures.text_signatures(searches, vocabulary, settings["max_length"])
        saved_model.write(folder / "text", signatures, resources)
        signatures = translation_signatures.id_signatures(searches, settings["max_length"])
        version = saved_model.write(folder / "ids", {name: signatures[name] for name in names})
        for signature, name in names.items():
            texts[name] = SavedModelTranslator(folder / "text", signature)
            ids[name] = (compiled(signatures[signature].function), version, signature)
    return texts, ids


def compiled(function):
    import tensorflow as tf

    return tf.function(function, input_signature=[tf.TensorSpec((None, None), "int32")], autograph=False)


def timed(function, requests, in_flight):
    """Sentences a second, and the seconds of each request from when it was sent."""

    def send(request):
        start = time.perf_counter()
        function(request)
        return time.perf_counter() - start

    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(in_flight) as threads:
        seconds = list(threads.map(send, requests))
    return sum(map(len, requests)) / (time.perf_counter() - start), seconds


def throughput(config, systems, sentences):
    """A row for each system, batch and number of requests in flight."""
    rows = []
    for batch in config.batches:
        places = np.arange(config.requests * batch) % len(sentences)
        requests = [[sentences[i] for i in each] for each in places.reshape(-1, batch)]
        for in_flight in config.in_flight:
            rates, seconds = {name: [] for name in systems}, {name: [] for name in systems}
            for number in rich.progress.track(range(config.repeats), f"{in_flight} x {batch}", transient=True):
                for name, system in systems.items():
                    if number == 0:
                        timed(system.translate, requests[: max(WARM_UP, in_flight)], in_flight)
                    rate, each = timed(system.translate, requests, in_flight)
                    rates[name].append(rate)
                    seconds[name] += each
            for name in systems:
                p50, p99 = 1e3 * np.percentile(seconds[name], [50, 99])
                rate = statistics.median(rates[name])
                row = {"system": name, "in_flight": in_flight, "batch": batch, "sentences_per_s": rate}
                rows.append({**row, "p50_ms": p50, "p99_ms": p99})
    return rows


def overheads(ids, repeats):
    """Of each system, the median time of its signature over that of the function, less 1; one sentence of 15 ids."""
    import tensorflow as tf

    source = np.random.default_rng(0).integers(4, 1000, (1, 15)).astype("int32")
    source[:, -1] = EOS
    source = tf.constant(source)
    found = {}
    for name, (function, version, signature) in ids.items():
        loaded = tf.saved_model.load(str(version))
        served = loaded.signatures[signature]
        pair = {"function": lambda f=function: f(source), "signature": lambda f=served: f(source_ids=source)}
        seconds = {key: [] for key in pair}
        for number in range(WARM_UP + 20 * repeats):
            for key, call in pair.items():
                start = time.perf_counter()
                call()["target_ids"].numpy()
                if number >= WARM_UP:
                    seconds[key].append(time.perf_counter() - start)
        function, signature = (statistics.median(seconds[key]) for key in pair)
        found[name] = {"function_ms": 1e3 * function, "signature_ms": 1e3 * signature}
    return found


def memory(config, system, sentences):
    """The memory that the process holds, in MB, after each twentieth of the requests."""
    process, found = psutil.Process(), []
    for number in rich.progress.track(range(config.memory_requests), "memory", transient=True):
        system.translate([sentences[number % len(sentences)]])
        if (number + 1) % max(1, config.memory_requests // 20) == 0:
            found.append(process.memory_info().rss / 2**20)
    return found


def tables(figures):
    system = rich.table.Column("system", overflow="fold")  # Runs of one project have long names that begin alike.
    columns = ("sentences", "in flight", system, "sentences/s", "x greedy", "p50 ms", "p99 ms")
    speed = rich.table.Table(*columns, title=f"{platform.machine()}, {os.cpu_count()} cores")
    greedy = {
        (row["batch"], row["in_flight"]): row["sentences_per_s"]
        for row in figures["throughput"]
        if row["system"] == "teacher, greedy"
    }
    for row in figures["throughput"]:
        ratio = row["sentences_per_s"] / greedy[row["batch"], row["in_flight"]]
        cells = [str(row["batch"]), str(row["in_flight"]), row["system"]]
        cells += [f"{row['sentences_per_s']:.1f}", f"{ratio:.2f}", f"{row['p50_ms']:.1f}", f"{row['p99_ms']:.1f}"]
        speed.add_row(*cells)
    yield speed
    costs = rich.table.Table("system", "function ms", "signature ms", "more, %")
    for name, row in figures["overheads"].items():
        more = 100 * (row["signature_ms"] / row["function_ms"] - 1)
        costs.add_row(name, f"{row['function_ms']:.2f}", f"{row['signature_ms']:.2f}", f"{more:.1f}")
    yield costs
    if figures["memory_mb"]:
        values = figures["memory_mb"]
        watched = rich.table.Table("memory, MB, after 1/20 of the requests", "half", "all", "most")
        watched.add_row(
            *(f"{value:.0f}" for value in (values[0], values[len(values) // 2 - 1], values[-1], max(values)))
        )
        yield watched


def main(args: list[str] | None = None) -> dict:
    config = tyro.cli(Config, args=args, description=__doc__)
    sentences = config.source.read_text(encoding="utf-8").splitlines()
    with tempfile.TemporaryDirectory() as directory:
        texts, ids = exported(config, directory)
        figures = {
            "throughput": throughput(config, texts, sentences),
            "overheads": overheads(ids, config.repeats),
            "memory_mb": memory(config, texts[pathlib.Path(config.parallel[0]).name], sentences),
        }
    publish(figures, config.json, *tables(figures))
    return figures


if __name__ == "__main__":
    main()
