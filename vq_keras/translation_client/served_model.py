"""A translator that a server has, whichever protocol it is asked by."""

import abc
import importlib
from collections.abc import Mapping, Sequence

from vq_keras.errors import InputError
from vq_keras.translation import Translation
from vq_keras.translation_client import retrying
from vq_keras.translation_client.failures import Refused, Unavailable, Unusable

# The outputs of the signatures of `vq_keras.text_signatures`.
_LONGEST = 86_400.0
_OUTPUTS = {"translation": str, "score": (float, int), "truncated": bool}


class ServedModel(abc.ABC):
    """Translates by a signature of text that TF Serving offers: `GrpcModel` or `RestModel`.

    Args:
        address: where the server listens.
        name: of the model.
        signature: one of those that `export/export_translation.py --text` writes.
        version: of the model; the server's choice, its latest, where neither this nor `label` is given.
        label: of a version.
        deadline: seconds that a request may take, with all its attempts.
        attempts: how often it is sent at most, where the server is away or overloaded.

    Raises:
        InputError: version and label are both given, deadline or attempts is not positive, or a library is missing.
    """

    library: str
    """What speaks the protocol."""

    def __init__(
        self,
        address: str,
        name: str,
        signature: str = "translate",
        version: int | None = None,
        label: str | None = None,
        deadline: float = 60.0,
        attempts: int = 5,
    ):
        if version is not None and label is not None:
            raise InputError("version and label both say which version to ask: give one of them.")
        if not 0 < deadline <= _LONGEST:  # Which nan is not, either.
            raise InputError(f"deadline is {deadline}; give more than 0 and at most {_LONGEST} seconds, a day.")
        if attempts <= 0:
            raise InputError(f"attempts is {attempts}; give more than 0.")
        for library in (self.library, "tenacity"):
            try:
                importlib.import_module(library)
            except ImportError as error:
                raise InputError(f"{library} cannot be imported ({error}): pip install 'vq_keras[client]'.") from error
        self.address, self.name, self.signature = address, name, signature
        self.version, self.label = version, label
        self._deadline, self._attempts = deadline, attempts

    def check(self) -> None:
        """Asks for the translation of nothing: does this server have this model, version and signature?

        Raises:
            InputError: it has not, or there is none.
        """
        try:
            self.translate([""])
        except Unavailable as error:
            raise InputError(
                f"No translations from {self.address} ({error}): is the server up, and is this its port?"
            ) from None
        except (Refused, Unusable) as error:
            version = f" version {self.version}" if self.version is not None else ""
            version = f" label {self.label}" if self.label is not None else version
            raise InputError(
                f"The server at {self.address} has no model {self.name}{version} that translates by {self.signature} "
                f"({error}): give another --name, --version, --label or --signature."
            ) from None

    def translate(self, sentences: Sequence[str]) -> list[Translation]:
        """Translates a batch, by one request that is sent again where that may help.

        Raises:
            Refused: the server does not take this batch, or what it answered is no translation of it.
            Unusable: it has no such model, version or signature.
            Unavailable: there was no answer, in no attempt.
        """
        outputs = retrying.call(lambda seconds: self._send(sentences, seconds), self._deadline, self._attempts)
        return _translations(outputs, len(sentences))

    @abc.abstractmethod
    def _send(self, sentences: Sequence[str], seconds: float) -> Mapping[str, list]:
        """The outputs of the signature by name, of one request; it raises as `translate` does."""


def _translations(outputs, count):
    for name, kind in _OUTPUTS.items():
        values = outputs.get(name)
        if values is None:
            raise Refused(f"the reply has no output {name}")
        if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
            raise Refused(f"the reply's {name} is of another type or shape than a translator's")
        if len(values) != count:
            raise Refused(f"the reply has {name} of {len(values)} sentences, not of {count}")
    return [Translation(*values) for values in zip(*(outputs[name] for name in _OUTPUTS), strict=True)]
