"""A translator from a SavedModel of text, run in this process."""

import os
from collections.abc import Sequence
from pathlib import Path

from vq_keras.errors import InputError
from vq_keras.translation import Translation
from vq_keras.translation_client.failures import Refused

FILE = "saved_model.pb"
_OUTPUTS = ("translation", "score", "truncated")


class SavedModelTranslator:
    """Translates by a signature that `export/export_translation.py --text` wrote, as TF Serving does.

    Args:
        directory: the model's, whose latest version is taken, or that of one version.
        signature: one that takes and gives text.
        version: another than the latest.

    Raises:
        InputError: there is no SavedModel, version or signature of text; it cannot be loaded; TensorFlow or TensorFlow
            Text is not installed.

    Example:
        >>> SavedModelTranslator("exports/numbers-text").translate(["two books"])
        [Translation(text='zwei Bücher', score=-0.05, truncated=False)]
    """

    def __init__(self, directory: str | os.PathLike, signature: str = "translate", version: int | None = None):
        directory = find_version(Path(directory), version)
        try:
            import tensorflow as tf
            import tensorflow_text  # noqa: F401  It has the tokenizer's operations.
        except ImportError as error:
            needed = "pip install 'vq_keras[tensorflow,translation]'"
            raise InputError(f"Text needs TensorFlow and TensorFlow Text ({error}): {needed}.") from error
        try:
            signatures = tf.saved_model.load(str(directory)).signatures
        except (OSError, ValueError, tf.errors.OpError) as error:
            reason = (str(error).splitlines() or ["it is damaged"])[0]
            raise InputError(f"{directory} cannot be read ({reason}); export it again.") from error
        by_text = [name for name in signatures if _is_of_text(signatures[name])]
        if signature not in by_text:
            known = f"give one of {', '.join(by_text)}" if by_text else "was it written with --text?"
            raise InputError(f"{directory} has no signature {signature} from text to text: {known}.")
        self._translate = signatures[signature]

    def translate(self, sentences: Sequence[str]) -> list[Translation]:
        """Translates a batch.

        Raises:
            Refused: TensorFlow cannot, for want of memory, say.
        """
        import tensorflow as tf

        try:
            outputs = self._translate(source=tf.constant([sentence.encode() for sentence in sentences], tf.string))
        except tf.errors.OpError as error:
            raise Refused(error.message.splitlines()[0]) from error
        columns = (outputs[name].numpy().tolist() for name in _OUTPUTS)
        return [Translation(text.decode(errors="replace"), *rest) for text, *rest in zip(*columns, strict=True)]


def find_version(directory: Path, version: int | None) -> Path:
    """The folder of a version of a model, the latest where none is given; that of one version is its own.

    Raises:
        InputError: there is none.
    """
    if (directory / FILE).exists():
        if version is not None and directory.name != str(version):
            raise InputError(
                f"{directory} is one version of a model: leave out the version, or give {version}'s folder."
            )
        return directory
    versions = sorted(int(path.parent.name) for path in directory.glob(f"*/{FILE}") if path.parent.name.isdigit())
    if not versions:
        raise InputError(f"{directory} is no SavedModel: neither it nor a version's folder in it has {FILE}.")
    version = versions[-1] if version is None else version
    if version not in versions:
        raise InputError(f"{directory} has no version {version}: it has {', '.join(map(str, versions))}.")
    return directory / str(version)


def _is_of_text(signature):
    _, inputs = signature.structured_input_signature
    has_text = [(name, spec.dtype.name) for name, spec in inputs.items()] == [("source", "string")]
    return has_text and set(_OUTPUTS) <= set(signature.structured_outputs)
