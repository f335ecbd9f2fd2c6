"""A translator behind TF Serving's gRPC port."""

import array

from vq_keras.translation_client.failures import Refused, Unavailable, Unusable
from vq_keras.translation_client.predict_messages import BOOL, FLOAT, STRING, messages
from vq_keras.translation_client.served_model import ServedModel

ENCRYPTED = "grpcs://"
_METHOD = "/tensorflow.serving.PredictionService/Predict"
# CANCELLED: by the server, as it goes; nobody cancels here.
_UNAVAILABLE = ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "CANCELLED")
_REFUSED = ("INVALID_ARGUMENT", "OUT_OF_RANGE", "INTERNAL", "UNKNOWN")
_OPTIONS = [
    # A name may stand for several servers, as that of a headless service in Kubernetes: each request to the next one.
    ("grpc.lb_policy_name", "round_robin"),
    # A batch of long sentences may be longer than gRPC's 4 MB.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # As often as it is tried again; gRPC's own attempts to connect are up to two minutes apart.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
]


class GrpcModel(ServedModel):
    """A `ServedModel` by gRPC; the address is HOST:PORT, or grpcs://HOST:PORT for an encrypted connection.

    Which authorities may sign the certificate of the server is gRPC's to know: its own list, or that in the file which
    the environment variable GRPC_DEFAULT_SSL_ROOTS_FILE_PATH names.

    Example:
        >>> GrpcModel("localhost:8500", "captions").translate(["two books"])
        [Translation(text='zwei Bücher', score=-0.05, truncated=False)]
    """

    library = "grpc"

    def __init__(self, address: str, name: str, **settings):
        super().__init__(address, name, **settings)
        import grpc

        if address.startswith(ENCRYPTED):
            place = address.removeprefix(ENCRYPTED)
            channel = grpc.secure_channel(place, grpc.ssl_channel_credentials(), _OPTIONS)
        else:
            channel = grpc.insecure_channel(address, _OPTIONS)
        self._predict = channel.unary_unary(
            _METHOD,
            request_serializer=messages().PredictRequest.SerializeToString,
            response_deserializer=messages().PredictResponse.FromString,
        )

    def _send(self, sentences, seconds):
        import grpc

        request = messages().PredictRequest()
        request.model_spec.name = self.name
        request.model_spec.signature_name = self.signature
        if self.version is not None:
            request.model_spec.version.value = self.version
        if self.label is not None:
            request.model_spec.version_label = self.label
        source = request.inputs.add(key="source").value
        source.dtype = STRING
        source.tensor_shape.dim.add(size=len(sentences))
        source.string_val.extend(sentence.encode() for sentence in sentences)
        try:
            reply = self._predict(request, timeout=seconds)
        except grpc.RpcError as error:
            code = error.code().name
            kind = Unavailable if code in _UNAVAILABLE else Refused if code in _REFUSED else Unusable
            raise kind(f"{code}: {error.details()}".splitlines()[0]) from None
        return {output.key: _values(output.value) for output in reply.outputs}


def _values(tensor):
    """The values of a tensor, as a list where it has one axis, and of the types that a translator's outputs have."""
    if len(tensor.tensor_shape.dim) != 1:
        return None
    if tensor.dtype == STRING:
        return [value.decode(errors="replace") for value in tensor.string_val]
    if tensor.dtype == FLOAT:
        return list(tensor.float_val or array.array("f", tensor.tensor_content))
    if tensor.dtype == BOOL:
        return list(tensor.bool_val or map(bool, tensor.tensor_content))
    return None
