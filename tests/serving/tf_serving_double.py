"""A stand-in for tensorflow_model_server, as far as the tests of its clients go; not a server for anything else.

Like the server it loads models with the V1 loader and runs them in a session with XLA switched off, answers by the
official protocol over gRPC, by the same routes over REST, and fails with the same codes. It takes the flags that the
tests give the server, and has nothing of its batching, its warm-up, its watching of folders and its other services. It
listens on 127.0.0.1.
"""

import argparse
import http.server
import json
import re
import threading
import urllib.parse
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  The operations of tokenizers.
from google.protobuf import json_format, text_format
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

from vq_keras import serving_check

_ROUTE = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(:predict|/metadata)?")
_HTTP = {"NOT_FOUND": 404, "UNIMPLEMENTED": 501, "INTERNAL": 500}  # The other codes that come up here are 400.
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
_FIELDS = {tf.string: "string_val", tf.float32: "float_val", tf.bool: "bool_val", tf.int32: "int_val"}


class Error(Exception):
    """A failure, with the code that it has at the server."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Version:
    """A SavedModel in a session of its own."""

    def __init__(self, directory):
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            self.signatures = tf.compat.v1.saved_model.load(self.session, ["serve"], str(directory)).signature_def

    def predict(self, signature, inputs):
        """The outputs by name, as arrays, for inputs by name, of which arrays can be made."""
        if inputs.keys() != signature.inputs.keys():
            raise Error("INVALID_ARGUMENT", f"inputs are {sorted(inputs)}; {sorted(signature.inputs)} are expected")
        try:
            feed = {spec.name: _array(inputs[name], spec.dtype) for name, spec in signature.inputs.items()}
            return self.session.run({name: spec.name for name, spec in signature.outputs.items()}, feed)
        except tf.errors.OpError as error:
            raise Error(_CODES[error.error_code], error.message) from None
        except (TypeError, ValueError) as error:
            raise Error("INVALID_ARGUMENT", str(error)) from None


def _array(value, dtype):
    dtype = tf.as_dtype(dtype)
    array = np.asarray(value, object if dtype == tf.string else dtype.as_numpy_dtype)
    if dtype == tf.string and not all(isinstance(item, (str, bytes)) for item in array.ravel()):
        raise ValueError("a string is expected")
    return array


class Models:
    def __init__(self, config):
        self.labels, self.versions = {}, {}
        for model in config.model_config_list.config:
            self.labels[model.name] = dict(model.version_labels)
            folders = [path for path in Path(model.base_path).iterdir() if path.name.isdigit()]
            self.versions[model.name] = {int(path.name): Version(path) for path in folders}

    def numbers(self, spec):
        """The versions that a ModelSpec can mean."""
        if spec.version_label:
            if spec.version_label not in self.labels.get(spec.name, {}):
                raise Error("INVALID_ARGUMENT", f"Unrecognized servable version label: {spec.version_label}")
            return [self.labels[spec.name][spec.version_label]]
        known = sorted(self.versions.get(spec.name, {}))
        if spec.HasField("version"):
            known = [number for number in known if number == spec.version.value]
        if not known:
            raise Error("NOT_FOUND", f"Servable not found for request: {spec.name} {spec.version.value or 'latest'}")
        return known

    def find(self, spec):
        number = self.numbers(spec)[-1]
        return number, self.versions[spec.name][number]

    def signature(self, spec, missing):
        """A version and the signature that is asked of it; `missing` is the code where it has no such."""
        number, version = self.find(spec)
        name = spec.signature_name or "serving_default"
        if name not in version.signatures:
            raise Error(missing, f'Serving signature key "{name}" not found.')
        return number, version, version.signatures[name]


def _answering(method):
    """A method of a service, whose errors become those of gRPC."""

    def answer(self, request, context):
        try:
            return method(self, request)
        except Error as error:
            context.abort(grpc.StatusCode[error.code], str(error))

    return answer


class Services(prediction_service_pb2_grpc.PredictionServiceServicer, model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, models):
        self.models = models

    def predict(self, request):
        number, version, signature = self.models.signature(request.model_spec, "FAILED_PRECONDITION")
        outputs = version.predict(signature, {name: tf.make_ndarray(value) for name, value in request.inputs.items()})
        response = predict_pb2.PredictResponse()
        response.model_spec.CopyFrom(request.model_spec)
        response.model_spec.version.value = number
        for name, value in outputs.items():
            # Values in the field of their type, as the server has them; tf.make_tensor_proto would pack them.
            dtype = tf.as_dtype(signature.outputs[name].dtype)
            tensor = response.outputs[name]
            tensor.dtype = dtype.as_datatype_enum
            tensor.tensor_shape.CopyFrom(tf.TensorShape(value.shape).as_proto())
            getattr(tensor, _FIELDS[dtype]).extend(value.ravel().tolist())
        return response

    def metadata(self, request):
        number, version = self.models.find(request.model_spec)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name, response.model_spec.version.value = request.model_spec.name, number
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=version.signatures)
        response.metadata["signature_def"].Pack(signatures)
        return response

    def status(self, request):
        response = get_model_status_pb2.GetModelStatusResponse()
        for number in self.models.numbers(request.model_spec):
            response.model_version_status.add(version=number, state="AVAILABLE").status.error_code = 0
        return response

    Predict, GetModelMetadata, GetModelStatus = _answering(predict), _answering(metadata), _answering(status)


def handler(services):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self._answer(None)

        def do_POST(self):
            self._answer(self.rfile.read(int(self.headers["Content-Length"])))

        def _answer(self, body):
            try:
                content, status = rest(services, self.path, body), 200
            except Error as error:
                content, status = {"error": str(error)}, _HTTP.get(error.code, 400)
            content = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    return Handler


def rest(services, path, body):
    """What the REST API answers, as what JSON can hold."""
    route = _ROUTE.fullmatch(path)
    if not route or (body is not None) != (route[4] == ":predict"):
        raise Error("INVALID_ARGUMENT", f"Malformed request: {path}")
    spec = model_pb2.ModelSpec(name=urllib.parse.unquote(route[1]), version_label=urllib.parse.unquote(route[3] or ""))
    if route[2]:
        spec.version.value = int(route[2])
    if body is not None:
        return _rest_predict(services.models, spec, body)
    if route[4]:
        answer = services.metadata(get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec))
    else:
        answer = services.status(get_model_status_pb2.GetModelStatusRequest(model_spec=spec))
    return json_format.MessageToDict(
        answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _rest_predict(models, spec, body):
    try:
        request = json.loads(body)
        spec.signature_name = request.get("signature_name", "")
        (form,) = {"inputs", "instances"} & request.keys()
    except (AttributeError, TypeError, ValueError):
        raise Error("INVALID_ARGUMENT", "the request is no JSON object with inputs or instances") from None
    _, version, signature = models.signature(spec, "INVALID_ARGUMENT")
    inputs, (*_, last) = request[form], signature.inputs
    if form == "instances":
        rows = [row if isinstance(row, dict) else {last: row} for row in inputs]
        inputs = {name: [row.get(name) for row in rows] for name in rows[0]}
    elif not isinstance(inputs, dict):
        inputs = {last: inputs}
    outputs = {name: _plain(value) for name, value in version.predict(signature, inputs).items()}
    if form == "inputs":
        return {"outputs": outputs if len(outputs) > 1 else next(iter(outputs.values()))}
    rows = [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]
    return {"predictions": rows if len(outputs) > 1 else next(iter(outputs.values()))}


def _plain(value):
    return [item.decode() for item in value] if value.dtype == object else value.tolist()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--rest_api_port", type=int)
    parser.add_argument("--model_config_file", type=Path)
    parser.add_argument("--allow_version_labels_for_unavailable_models")
    arguments = parser.parse_args()
    serving_check.switch_xla_off()
    config = text_format.Parse(arguments.model_config_file.read_text(), model_server_config_pb2.ModelServerConfig())
    services = Services(Models(config))
    web = http.server.ThreadingHTTPServer(("127.0.0.1", arguments.rest_api_port), handler(services))
    threading.Thread(target=web.serve_forever, daemon=True).start()
    # The server's own limit; gRPC's is 4 MB.
    server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", 2**31 - 1)])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(services, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(services, server)
    server.add_insecure_port(f"127.0.0.1:{arguments.port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
