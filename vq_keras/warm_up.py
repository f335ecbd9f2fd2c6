"""Requests that TF Serving runs when it loads a model, so that no client waits for what is done but once."""

from pathlib import Path

from vq_keras.errors import InputError

FILE = "assets.extra/tf_serving_warmup_requests"


def check_installed() -> None:
    """Raises `InputError` where tensorflow-serving-api, which has the format of the requests, is missing."""
    try:
        import tensorflow_serving.apis.prediction_log_pb2  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"Warm-up requests need tensorflow-serving-api ({error}): pip install 'vq_keras[serving]'."
        ) from error


def write(saved_model: Path, model: str, signatures) -> None:
    """Writes the examples of signatures into a SavedModel: a TFRecord file of `PredictionLog`, at most 1,000.

    Args:
        saved_model: the folder of the version.
        model: the name of the model.
        signatures: `vq_keras.saved_model.Signature` by name; those without examples get no request.
    """
    examples = [(name, example) for name, signature in signatures.items() for example in signature.examples]
    if not examples:
        return
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    path = Path(saved_model) / FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name, example in examples:
            request = predict_pb2.PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = model, name
            for key, value in example.items():
                request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())
