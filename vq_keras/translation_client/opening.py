"""From what a user names, a model or a server, to what translates."""

import re
from pathlib import Path

from vq_keras.errors import InputError
from vq_keras.translation_client.grpc_model import ENCRYPTED, GrpcModel
from vq_keras.translation_client.rest_model import RestModel
from vq_keras.translation_client.saved_model_translator import FILE, SavedModelTranslator
from vq_keras.translation_client.served_model import ServedModel


def open_server(address: str, name: str, **settings) -> ServedModel:
    """A model of a server, which has been asked whether it has it.

    Args:
        address: HOST:PORT or grpcs://HOST:PORT for gRPC, http://HOST:PORT or https://HOST:PORT for REST; with the s
            encrypted.
        name: of the model.
        **settings: of `ServedModel`.

    Raises:
        InputError: the address is none, no server is there, or it has no such model, version or signature.
    """
    if re.fullmatch(r"https?://[^/?#]+[^?#]*", address):
        served = RestModel(address, name, **settings)
    elif re.fullmatch(rf"({ENCRYPTED})?[^/\s]+:\d+", address):
        served = GrpcModel(address, name, **settings)
    else:
        raise InputError(
            f"the server is {address!r}: give HOST:PORT for gRPC, or http://HOST:PORT for REST, or grpcs:// or https://."
        )
    served.check()
    return served


def open_model(model: str, signature: str = "translate", version: int | None = None):
    """A translator in this process.

    Args:
        model: a SavedModel of text, or one version of it; a model of LiteRT, FILE.tflite; a run's folder; a preset.
        signature: the search, by the name of its signature.
        version: of a SavedModel.

    Returns:
        What has `vq_keras.translator.Translator`'s `translate(sentences)`.

    Raises:
        InputError: there is no such model, or it has no such signature or version.
    """
    path = Path(model)
    if (path / FILE).exists() or any(path.glob(f"*/{FILE}")):
        return SavedModelTranslator(path, signature, version)
    if version is not None:
        raise InputError(f"{model} is no SavedModel and has no versions: leave out the version.")
    if path.suffix == ".tflite":
        if signature != "translate":
            raise InputError(f"{model} translates in one way: leave out the signature.")
        from vq_keras import litert_model

        return litert_model.load(path)
    from vq_keras import translation_signatures
    from vq_keras.training import runs
    from vq_keras.translator import Translator

    trained, vocabulary, config = runs.load_translator(model)
    searches = translation_signatures.searches(trained)
    if signature not in searches:
        raise InputError(f"{model} has no signature {signature}: give one of {', '.join(searches)}.")
    return Translator(searches[signature], vocabulary, config["max_length"])
