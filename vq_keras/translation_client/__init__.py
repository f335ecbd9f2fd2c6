"""Translates text by a model in this process or one that is served, and says of each sentence what came of it."""

from vq_keras.translation import Translation
from vq_keras.translation_client.failures import Failure
from vq_keras.translation_client.grpc_model import GrpcModel
from vq_keras.translation_client.opening import open_model, open_server
from vq_keras.translation_client.rest_model import RestModel
from vq_keras.translation_client.saved_model_translator import SavedModelTranslator
from vq_keras.translation_client.served_model import ServedModel
from vq_keras.translation_client.stream import TranslationStream

__all__ = [
    "Failure",
    "GrpcModel",
    "RestModel",
    "SavedModelTranslator",
    "ServedModel",
    "Translation",
    "TranslationStream",
    "open_model",
    "open_server",
]
