"""A translator in one .tflite file, which LiteRT runs on CPUs and devices without TensorFlow."""

import contextlib
import errno
import functools
import io
import json
import math
import os
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

from vq_keras.data.vocabulary import FILE, PAD, Vocabulary
from vq_keras.errors import InputError
from vq_keras.training.files import replace_file
from vq_keras.translator import Translator

SETTINGS = "translator.json"
# A source takes the graph of the shortest length that holds it, as a share of the greatest.
SHARES = (1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)
# And a latent Transformer's graphs have places for targets of the source's length. Who needs more takes a longer one.
ROOM = 0.5
# What reading a zip archive and its JSON may come to where a bit is wrong.
_DAMAGED = (zipfile.BadZipFile, zlib.error, LookupError, TypeError, ValueError, EOFError, RuntimeError)


def write(path, search, vocabulary: Vocabulary, max_length: int, quantize: bool = True) -> None:
    """Writes a search with its model, its vocabulary and its greatest length as one file, which `load` reads.

    The file is a LiteRT (TensorFlow Lite) model of builtin operations with a signature for each of seven lengths of
    sources, which share the weights: its kernels are for shapes that are known beforehand, and what they compute for
    padding takes as long as what they compute for tokens. Those of a latent Transformer are called `narrow_` and the
    length, with a third output, `fits`: false where the translation is longer than the source's graph has room for,
    and what comes out means nothing. All others are called `translate_` and the length, the longest of a latent
    Transformer, too, which has room for all. Behind the model stands a zip archive of what belongs to it, as
    TensorFlow Lite's own metadata does, so that `unzip` finds the vocabulary.

    Args:
        path: the file, which is replaced where there is one.
        search: of `vq_keras.search`.
        vocabulary: that of the model.
        max_length: the ids of the longest source, EOS among them.
        quantize: 8 bits for the weights, with a scale for each output, and for what they are multiplied with, with a
            scale for each row of it that is found on the fly ("dynamic range"); else float32.

    Raises:
        InputError: on another backend than TensorFlow, or where the file cannot be written.

    Example:
        >>> write("exports/numbers.tflite", LatentSearch(model), vocabulary, max_length=100)
        >>> load("exports/numbers.tflite").translate(["two books"])
        [Translation(text='zwei Bücher', score=-0.05, truncated=False)]
    """
    from vq_keras.search import LatentSearch  # It imports Keras, which `load` does without.

    lengths = sorted({max(2, math.ceil(share * max_length)) for share in SHARES})
    signatures = {f"translate_{length}": (search, length) for length in lengths}
    if isinstance(search, LatentSearch):
        narrow = functools.partial(search.in_room, room=ROOM)
        signatures = {f"narrow_{length}": (narrow, length) for length in lengths}
        signatures[f"translate_{lengths[-1]}"] = (search, lengths[-1])
    with _told_of(path):
        # Before the minutes that follow are spent.
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if Path(path).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    model = convert(signatures, search.model.embedding, quantize)
    content = io.BytesIO(model)
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr(FILE, vocabulary.proto)
        archive.writestr(SETTINGS, json.dumps({"max_length": max_length, "size": len(model), "crc": zlib.crc32(model)}))
    with _told_of(path):
        replace_file(path, content.getvalue())


@contextlib.contextmanager
def _told_of(path):
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); give another file, or make room.") from error


def search_of(model, beams: int | None = None, candidates: int | None = None):
    """The search of a model to write: greedy, or with so many beams or candidates.

    Args:
        model, beams, candidates: as of `vq_keras.translation_signatures.searches`.

    Raises:
        InputError: as `searches`.
    """
    from vq_keras.search import AutoregressiveSearch
    from vq_keras.translation_signatures import searches

    found = list(searches(model, beams, candidates).values())[bool(beams or candidates)]
    if isinstance(found, AutoregressiveSearch):
        # Each loop of each length has weights of its own in memory, in the order in which its kernels read them.
        return AutoregressiveSearch(model, found.beams, stages=False)
    return found


def convert(signatures: dict, embedding, quantize: bool) -> bytes:
    """Functions of sources as a LiteRT model.

    Args:
        signatures: by name, a function of source ids int32 (1, n) that returns a dictionary of tensors, and n.
        embedding: the `TiedEmbedding` that they use.
        quantize: as of `write`.

    Returns:
        The bytes of a .tflite file.

    Raises:
        InputError: on another backend than TensorFlow, or where the temporary folder is full.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"LiteRT models are written by TensorFlow, not by {keras.backend.backend()}: set KERAS_BACKEND=tensorflow; "
            "a model.keras that was trained on another backend loads there."
        )
    import tensorflow as tf

    # The converter would write a table of lookups and logits twice: an integer has a scale of its table, or of its row.
    with tempfile.TemporaryDirectory() as folder, embedding.rounded() if quantize else contextlib.nullcontext():
        archive = keras.export.ExportArchive()
        for name, (function, length) in signatures.items():
            archive.add_endpoint(name, function, [tf.TensorSpec((1, length), "int32", name="source")])
        try:
            archive.write_out(folder, verbose=False)
        except (OSError, tf.errors.OpError) as error:
            raise InputError(
                f"There is no room for the model in the temporary folder {folder}: make some, or set TMPDIR to another."
            ) from error
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(signatures))
        if quantize:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return converter.convert()


def load(path, threads: int = 1) -> Translator:
    """The translator of a file that `write` made.

    Args:
        path: the file.
        threads: that work on a sentence.

    Returns:
        a translator whose search takes sentences one by one: LiteRT has no more speed for several at once.

    Raises:
        InputError: LiteRT is not installed; the file is missing, damaged or another one.

    Example:
        >>> load("exports/numbers.tflite").translate(["two books"])
        [Translation(text='zwei Bücher', score=-0.05, truncated=False)]
    """
    try:
        content = Path(path).read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            settings, proto = json.loads(archive.read(SETTINGS)), archive.read(FILE)
        max_length, is_whole = settings["max_length"], zlib.crc32(content[: settings["size"]]) == settings["crc"]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except _DAMAGED:
        is_whole = False
    if not is_whole:
        raise InputError(f"{path} is damaged, or not of export/export_litert.py: export the run again.")
    return Translator(LiteRTSearch(path, threads), Vocabulary(proto), max_length)


class LiteRTSearch:
    """What `convert` made of searches, to be called as those of `vq_keras.search`, by one thread at a time.

    Args:
        path: the file.
        threads: that work on a sentence.

    Raises:
        InputError: LiteRT is not installed.
    """

    def __init__(self, path, threads: int):
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise InputError(f"LiteRT is not there ({error}): pip install 'vq_keras[litert]'.") from error
        # By its path, which maps the weights of the file instead of copying them.
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        runners = [interpreter.get_signature_runner(name) for name in interpreter.get_signature_list()]
        by_length = [(runner.get_input_details()["source"]["shape"][1], runner) for runner in runners]
        # Of two of one length the one with less room comes first.
        self._runners = sorted(by_length, key=lambda each: (each[0], "fits" not in each[1].get_output_details()))

    def predict_on_batch(self, source) -> dict[str, np.ndarray]:
        """Source ids int32 (batch, n) -> {"tokens": int32 (batch, m), "scores": float32 (batch,)}.

        Rows end in EOS and are padded with 0. One that has nothing before EOS, with which a `Translator` fills its
        batches up, has no tokens and the score 0.
        """
        found = [self._translated(row[row != PAD]) for row in np.asarray(source, "int32")]
        tokens = np.zeros((len(found), max(len(row) for row, _ in found)), "int32")
        for place, (row, _) in zip(tokens, found, strict=True):
            place[: len(row)] = row
        return {"tokens": tokens, "scores": np.array([score for _, score in found], "float32")}

    def _translated(self, ids):
        if len(ids) < 2:
            return ids[:0], 0.0
        for length, runner in self._runners:
            if length < len(ids):
                continue
            found = runner(source=np.pad(ids, (0, length - len(ids)))[None])
            if found.get("fits", True):
                return found["tokens"][0], found["scores"][0]
