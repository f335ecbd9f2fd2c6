"""A training set with a teacher's translations, in pieces that survive an interruption."""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.progress import track

from vq_keras.errors import InputError
from vq_keras.training import runs
from vq_keras.training.files import replace_file
from vq_keras.translator import Translator

SOURCE, TARGET = "source.txt", "target.txt"


def distill(translator: Translator, sources: Sequence[str], output: Path, shard: int, settings: dict) -> None:
    """Writes `output/source.txt` and `output/target.txt`: sources and their translations, as parallel text.

    The sentences are translated in order of their lengths, so that hardly a batch is padded, and saved `shard` at a
    time; a call after one that was killed translates what is missing. Both files are there, whole, or not at all.
    Sources that were too long for the translator, or whose translation is empty, are left out and counted.

    Args:
        translator: the teacher.
        sources: sentences.
        output: the folder.
        shard: sentences from one saved piece to the next.
        settings: what else decides the translations, for the check that a folder is continued with the same.

    Raises:
        InputError: there is nothing to translate, no translation has a word, or the folder holds those of others.

    Example:
        >>> distill(translator, ["two books", "two houses"], Path("/tmp/distilled"), shard=1000, settings={"beams": 4})
    """
    if not sources or shard < 1:
        raise InputError(f"There are {len(sources)} sentences to translate, {shard} at a time; give at least one.")
    text = hashlib.sha256("\n".join(sources).encode()).hexdigest()[:16]
    model = hashlib.sha256()
    for weight in translator.search.weights:
        model.update(np.asarray(weight).tobytes())
    config = {"sources": text, "teacher": model.hexdigest()[:16], "shard": shard, **settings}
    runs.claim(output, config)
    if (output / TARGET).exists():
        return

    order = sorted(range(len(sources)), key=lambda i: (len(sources[i]), i))
    pieces = output / "shards"
    paths = [pieces / f"{start:09d}.txt" for start in range(0, len(order), shard)]
    for number, path in enumerate(track(paths, "translating")):
        if not path.exists():
            chosen = [sources[i] for i in order[number * shard : (number + 1) * shard]]
            found = translator.translate(chosen)
            # A byte of the vocabulary may be a line's end.
            lines = ["" if each.truncated else " ".join(each.text.split()) for each in found]
            replace_file(path, "".join(f"{line}\n" for line in lines).encode())

    lines = [line for path in paths for line in path.read_text("utf-8", errors="replace").split("\n")[:-1]]
    if len(lines) != len(sources):
        raise InputError(f"{pieces} is damaged: {len(lines)} translations of {len(sources)}; remove it and start anew.")
    targets = dict(zip(order, lines, strict=True))
    kept = [i for i in range(len(sources)) if targets[i]]
    if not kept:
        raise InputError(f"None of the {len(sources):,} sources got a translation: train the teacher for longer.")
    # The target last: it says that all is there.
    replace_file(output / SOURCE, "".join(f"{sources[i]}\n" for i in kept).encode())
    replace_file(output / TARGET, "".join(f"{targets[i]}\n" for i in kept).encode())
    shutil.rmtree(pieces)
    if len(kept) < len(sources):
        print(f"{len(sources) - len(kept):,} of {len(sources):,} sources were too long or had an empty translation.")
