"""Translators side by side: how good, how quick, all in one process and as graphs that a server would run."""

import dataclasses
import tempfile
import time
from collections.abc import Mapping, Sequence

import keras
import numpy as np
from rich.progress import track

from vq_keras import saved_model
from vq_keras.data.vocabulary import Vocabulary
from vq_keras.saved_model import Signature
from vq_keras.search import graph_function
from vq_keras.translation_quality import quality
from vq_keras.translator import Translator

_THROUGHPUT_BATCH = 32


@dataclasses.dataclass(frozen=True, eq=False)
class System:
    """A way to translate.

    Args:
        search: of `vq_keras.search`.
        vocabulary: that of its model.
        max_length: the longest source, in ids.
    """

    search: keras.Model
    vocabulary: Vocabulary
    max_length: int


class _Exported:
    """A search after a round trip through a SavedModel."""

    def __init__(self, loaded, name: str):
        self._loaded, self._name = loaded, name  # Variables live as long as what was loaded.

    def predict_on_batch(self, source):
        return self._loaded.signatures[self._name](source=source)


def _export(searches: Sequence[keras.Model]) -> list[_Exported]:
    import tensorflow as tf

    # All in one: another process, which loads TensorFlow first, checks each SavedModel.
    signatures = {
        f"translate_{i}": Signature(graph_function(search), {"source": ((None, None), "int32")})
        for i, search in enumerate(searches)
    }
    with tempfile.TemporaryDirectory() as directory:
        loaded = tf.saved_model.load(str(saved_model.write(directory, signatures)))
    return [_Exported(loaded, name) for name in signatures]


def evaluate(
    systems: Mapping[str, System], sources: Sequence[str], references: Sequence[str], timed: int = 200
) -> dict[str, dict]:
    """BLEU and chrF, latency and throughput of several translators.

    They are exported as one SavedModel and loaded again; the times, with tokenisation, are of those graphs. At each
    sentence, and at each batch, the systems take turns, so that what else the machine does hits all alike.

    Args:
        systems: by name.
        sources: sentences.
        references: their translations.
        timed: how many of the sentences are timed, the first ones.

    Returns:
        For each system by name {"bleu", "chrf", their signatures, "median_ms" and "p95_ms": latency of a sentence
        alone; "sentences_per_s": throughput in batches of 32 sentences of about one length; "truncated": sentences
        that were too long}.
    """
    exported = _export([each.search for each in systems.values()])
    translators = {
        name: Translator(search, each.vocabulary, each.max_length)
        for search, (name, each) in zip(exported, systems.items(), strict=True)
    }
    figures = {}
    for name, translator in translators.items():
        found = translator.translate(sources, lambda batches, name=name: track(batches, name))
        figures[name] = quality([each.text for each in found], references)
        figures[name]["truncated"] = sum(each.truncated for each in found)

    some = list(sources[:timed])
    latencies = {name: [] for name in systems}
    # The first calls are not counted: what a process does but once is in them.
    first = some[:5]
    for sentence in track([*first, *some], "one by one"):
        for name, translator in translators.items():
            start = time.perf_counter()
            translator.translate([sentence])
            latencies[name].append(time.perf_counter() - start)
    by_length = sorted(some, key=len)
    batches = [by_length[i : i + _THROUGHPUT_BATCH] for i in range(0, len(some), _THROUGHPUT_BATCH)]
    spent = dict.fromkeys(systems, 0.0)
    for batch in track(batches, f"{_THROUGHPUT_BATCH} at once"):
        for name, translator in translators.items():
            start = time.perf_counter()
            translator.translate(batch)
            spent[name] += time.perf_counter() - start
    for name in systems:
        milliseconds = 1e3 * np.array(latencies[name][len(first) :])
        figures[name]["median_ms"] = float(np.median(milliseconds))
        figures[name]["p95_ms"] = float(np.percentile(milliseconds, 95))
        figures[name]["sentences_per_s"] = len(some) / spent[name]
    return figures
