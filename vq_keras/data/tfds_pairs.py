"""Sentence pairs from the translation sets of TensorFlow Datasets: WMT, TED talks and others of their shape."""

import os

from vq_keras.data import tfds
from vq_keras.data.translation_data import Pairs, TranslationData
from vq_keras.errors import InputError

_PARTS = ("train", "validation", "test")


def load(name: str, data_dir: str | os.PathLike | None, languages: tuple[str, str]) -> TranslationData:
    """The sources of `vq_keras.data.translation.load` that have a "/" in their names.

    White space around a sentence is dropped, and so are pairs of which a side is empty, as crawled sets have some.

    Args:
        name: in TFDS, with the configuration: "wmt14_translate/de-en" is what roy2018 is trained on.
        data_dir: a TFDS data directory; None takes TFDS's own choice (TFDS_DATA_DIR, or ~/tensorflow_datasets).
            The set is downloaded into it if it is not there.
        languages: of the sources and of the targets, as the set names them.

    Returns:
        The pairs of the splits "train", "validation" and "test".

    Raises:
        InputError: TensorFlow Datasets is not installed or has no such set, the set is neither there nor
            downloadable, or lacks a language or a split.
    """
    builder = tfds.find(name, data_dir, name, instead="--dataset numbers")
    tfds.prepare(builder, name, instead="--dataset numbers")
    there = sorted(builder.info.features)
    if not set(languages) <= set(there):
        raise InputError(
            f"{name} has {', '.join(there)}, not {' and '.join(languages)}: name two of its languages (--languages)."
        )
    lacking = [part for part in _PARTS if part not in builder.info.splits]
    if lacking:
        raise InputError(
            f"{name} has no split {' and '.join(map(repr, lacking))}: write its pairs to files and split them there."
        )
    return TranslationData(name, *(_pairs(builder, name, part, languages) for part in _PARTS))


def _pairs(builder, name: str, part: str, languages: tuple[str, str]) -> Pairs:
    pairs = Pairs([], [])
    for batch in tfds.batches(builder, part, name):
        for sentences in zip(*(batch[language] for language in languages), strict=True):
            source, target = (sentence.decode().strip() for sentence in sentences)
            if source and target:
                pairs.sources.append(source)
                pairs.targets.append(target)
    return pairs
