"""Servers that answer Predict by a script, for what TF Serving does only on bad days.

A script takes the sentences of a request and returns the outputs by name, or the code of a failure.
"""

import contextlib
import http.server
import json
import threading
from concurrent import futures

_HTTP = {"RESOURCE_EXHAUSTED": 429, "UNAVAILABLE": 503, "NOT_FOUND": 404, "UNIMPLEMENTED": 501}  # All others: 400.


def mirror(sentences):
    """Translates into capitals; the score is the length."""
    return {
        "translation": [sentence.upper() for sentence in sentences],
        "score": [float(len(sentence)) for sentence in sentences],
        "truncated": [False] * len(sentences),
    }


@contextlib.contextmanager
def grpc_server(script, certificate=None):
    """The address of a server with the script for its prediction service; without any where it is None.

    With a certificate, the contents of a key's and a certificate's file, connections are encrypted.
    """
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            answer = script([text.decode() for text in tf.make_ndarray(request.inputs["source"])])
            if isinstance(answer, str):
                context.abort(grpc.StatusCode[answer], "as the script has it")
            # Packed, as other servers than TensorFlow's have it.
            return predict_pb2.PredictResponse(
                outputs={name: tf.make_tensor_proto(values) for name, values in answer.items()}
            )

    server = grpc.server(futures.ThreadPoolExecutor(8))
    if script is not None:
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    if certificate:
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([certificate]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"localhost:{port}"
    finally:
        server.stop(0).wait()


@contextlib.contextmanager
def rest_server(script):
    """The same by REST; where the script is None, a server of pages."""

    def answer(body):
        if script is None:
            return 200, "text/html", b"<html>Welcome</html>"
        answer = script(json.loads(body)["inputs"]["source"])
        if isinstance(answer, str):
            return _HTTP.get(answer, 400), "application/json", b'{"error": "as the script has it"}'
        return 200, "application/json", json.dumps({"outputs": answer}).encode()

    with http_server(answer) as address:
        yield address


@contextlib.contextmanager
def http_server(answer, headers=()):
    """The address of a server that answers the body of every POST by a status, a type and content."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            status, kind, content = answer(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            for name, value in (("Content-Type", kind), ("Content-Length", str(len(content))), *headers):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://localhost:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
