"""The messages of TF Serving's Predict, as much of them as strings in and strings, floats and bools out need.

tensorflow-serving-api has them all, but imports TensorFlow (4 s, 700 MB) for the one message of a tensor, and so asks
for TensorFlow where nothing but a client runs. The names and numbers are those of tensorflow_serving/apis/predict.proto
and model.proto and tensorflow/core/framework/tensor.proto; fields that are left out stay unread. The pool is our own:
that of TensorFlow may have the same names.
"""

import functools
import types

STRING, FLOAT, BOOL = 7, 1, 10  # tensorflow.DataType

# A map is sent as its entries are.
_MESSAGES = {
    "Dim": {"size": (1, "int64")},
    "TensorShape": {"dim": (2, "repeated Dim")},
    "Tensor": {
        "dtype": (1, "int32"),
        "tensor_shape": (2, "TensorShape"),
        "tensor_content": (4, "bytes"),
        "float_val": (5, "repeated float"),
        "string_val": (8, "repeated bytes"),
        "bool_val": (11, "repeated bool"),
    },
    "NamedTensor": {"key": (1, "string"), "value": (2, "Tensor")},
    "Int64Value": {"value": (1, "int64")},
    "ModelSpec": {
        "name": (1, "string"),
        "version": (2, "Int64Value"),
        "signature_name": (3, "string"),
        "version_label": (4, "string"),
    },
    "PredictRequest": {"model_spec": (1, "ModelSpec"), "inputs": (2, "repeated NamedTensor")},
    "PredictResponse": {"outputs": (1, "repeated NamedTensor")},
}


@functools.cache
def messages() -> types.SimpleNamespace:
    """The classes of all messages, by name."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="predict.proto", package="vq_keras", syntax="proto3")
    for message, fields in _MESSAGES.items():
        added = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            field = added.field.add(name=name, number=number)
            field.label = field.LABEL_REPEATED if kind.startswith("repeated ") else field.LABEL_OPTIONAL
            kind = kind.removeprefix("repeated ")
            if kind in _MESSAGES:
                field.type, field.type_name = field.TYPE_MESSAGE, f".vq_keras.{kind}"
            else:
                field.type = getattr(field, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    classes = {name: pool.FindMessageTypeByName(f"vq_keras.{name}") for name in _MESSAGES}
    return types.SimpleNamespace(
        **{name: message_factory.GetMessageClass(descriptor) for name, descriptor in classes.items()}
    )
