"""Would TF Serving run this SavedModel?  `python -m vq_keras.serving_check DIR ...`

The server feeds and fetches tensors by name in a session, with XLA switched off and without Python. This command
does the same with the installed TensorFlow, and reads the graph for what the server would refuse or could not batch.
The operations of TensorFlow Text, which the server has from 2.20 on, are known where it is installed. It prints a line
for each finding and exits with 1 if there was one, with 2 where a folder is none of a SavedModel.
"""

import contextlib
import ctypes
import os
import sys
from pathlib import Path

import numpy as np

PYTHON_OPS = ("PyFunc", "PyFuncStateless", "EagerPyFunc")
BATCH, LENGTH = 2, 8
FILE = "saved_model.pb"


def findings(directory):
    """What the server would refuse in a SavedModel, as a list of lines; empty where all is well.

    Switches XLA off for the rest of the process.

    Args:
        directory: one version of a model, the folder that holds saved_model.pb.
    """
    switch_xla_off()
    with contextlib.suppress(ImportError):
        import tensorflow_text  # noqa: F401
    return sorted(set(_graph_findings(directory))) + list(_run_findings(directory))


def switch_xla_off():
    import tensorflow as tf

    library = ctypes.CDLL(os.path.join(os.path.dirname(tf.__file__), "libtensorflow_cc.so.2"))
    library["_ZN10tensorflow21DisableXlaCompilationEv"]()  # What the server's main function calls.


def _graph_findings(directory):
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow.python.framework import op_def_registry

    saved_model = saved_model_pb2.SavedModel()
    saved_model.ParseFromString((Path(directory) / FILE).read_bytes())
    graph = saved_model.meta_graphs[0]
    functions = graph.graph_def.library.function
    known = {function.signature.name for function in functions}
    for function in functions:
        if function.attr["_XlaMustCompile"].b:
            yield f"{function.signature.name} has to be compiled by XLA"
    for node in [*graph.graph_def.node, *(node for function in functions for node in function.node_def)]:
        if node.op.startswith("Xla") or node.attr["_XlaMustCompile"].b:
            yield f"the operation {node.op} ({node.name}) needs XLA"
        elif node.op in PYTHON_OPS:
            yield f"the operation {node.op} ({node.name}) needs Python"
        elif node.op not in known and op_def_registry.get(node.op) is None:
            yield f"the operation {node.op} ({node.name}) is not one of TensorFlow's"
    for name, signature in graph.signature_def.items():
        if name.startswith("__"):
            continue
        for key, output in signature.outputs.items():
            if not output.dtype:
                yield f"output {key} of {name} is ragged"
            elif not output.tensor_shape.unknown_rank and not output.tensor_shape.dim:
                yield f"output {key} of {name} is a scalar, which cannot be batched"


def _run_findings(directory):
    import tensorflow as tf

    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        try:
            model = tf.compat.v1.saved_model.load(session, ["serve"], str(directory))
        except (OSError, RuntimeError, ValueError, tf.errors.OpError) as error:
            yield f"it cannot be loaded: {' '.join(str(error).split())}"
            return
        for name, signature in model.signature_def.items():
            if name.startswith("__"):
                continue
            feed = {spec.name: _example(spec) for spec in signature.inputs.values()}
            try:
                outputs = session.run({key: spec.name for key, spec in signature.outputs.items()}, feed)
            except tf.errors.OpError as error:
                yield f"{name} fails: {' '.join(error.message.split())}"
                continue
            for key, value in outputs.items():
                if np.shape(value)[:1] != (BATCH,):
                    yield f"output {key} of {name} does not start with the batch: {np.shape(value)}"


def _example(spec):
    import tensorflow as tf

    sizes = [dim.size if dim.size > 0 else LENGTH for dim in spec.tensor_shape.dim]
    shape = [BATCH, *sizes[1:]]
    dtype = tf.as_dtype(spec.dtype)
    return np.full(shape, b"an example", object) if dtype == tf.string else np.ones(shape, dtype.as_numpy_dtype)


def main(arguments):
    without = [directory for directory in arguments if not (Path(directory) / FILE).is_file()]
    if without or not arguments:
        named = f"{without[0]} has no {FILE}" if without else "No folder was named"
        print(f"error: {named}: give the folder of one version, such as exports/numbers/1.", file=sys.stderr)
        return 2
    lines = [f"{directory}: {line}" for directory in arguments for line in findings(directory)]
    print("\n".join([*lines, ""]), end="")
    return 1 if lines else 0


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main(sys.argv[1:]))
