"""Translations by the name of their source."""

import os
from collections.abc import Sequence

from vq_keras.data import number_sentences, parallel_text, tfds_pairs
from vq_keras.data.translation_data import TranslationData
from vq_keras.errors import InputError

Files = tuple[str | os.PathLike, str | os.PathLike]


def load(
    name: str,
    train: Files | None = None,
    validation: Files | None = None,
    test: Files | None = None,
    data_dir: str | os.PathLike | None = None,
    languages: Sequence[str] = ("en", "de"),
) -> TranslationData:
    """Loads a set of translations.

    Args:
        name: "numbers" (English numbers, dates and times in German, made on the spot), "files" (text files), or a
            translation set of TensorFlow Datasets with its configuration, such as "wmt14_translate/de-en".
        train: for "files": the file of sources and that of targets, as `vq_keras.data.parallel_text.read` wants them.
        validation: the same, to choose a model by.
        test: the same, to report on.
        data_dir: for TensorFlow Datasets: its data directory (default: the one TFDS itself uses).
        languages: for TensorFlow Datasets: of the sources and of the targets.

    Returns:
        The pairs, as `TranslationData`.

    Raises:
        InputError: the name is unknown, the source is missing, damaged or not as asked for, or a place was given
            that the source does not have.

    Example:
        >>> load("numbers").name
        'numbers'
    """
    files = {"train": train, "validation": validation, "test": test}
    given = [f"--{part}" for part, paths in files.items() if paths is not None]
    lacking = [f"--{part}" for part, paths in files.items() if paths is None]
    if name in ("numbers", "files") and data_dir is not None:
        raise InputError(f"The data set '{name}' has no data directory: leave out {data_dir}.")
    if name != "files" and given:
        raise InputError(f"The data set '{name}' takes no {' and '.join(given)}: only 'files' does.")
    if name == "files" and lacking:
        raise InputError(f"The data set 'files' needs {' and '.join(lacking)}, each with a SOURCE and a TARGET file.")
    if name == "files":
        return TranslationData("files", *(parallel_text.read(*paths) for paths in files.values()))
    if name == "numbers":
        return number_sentences.load()
    if "/" in name:
        return tfds_pairs.load(name, data_dir, tuple(languages))
    raise InputError(
        f"There is no data set '{name}'; choose numbers, files, or one of TensorFlow Datasets with its configuration, "
        "such as wmt14_translate/de-en."
    )
