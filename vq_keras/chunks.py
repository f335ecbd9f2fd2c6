"""A batch of any size through a graph, a part at a time."""

from collections.abc import Callable


def in_chunks(function: Callable, places: int) -> Callable:
    """A function that does a few rows of a batch after the others, so that its memory does not grow with the batch.

    Args:
        function: takes tensors of the shape (batch, n, ...), of any n, or (batch,), which has one column; returns a
            dict of tensors, each with the batch as its first axis and else of one shape for the same n.
        places: so many rows times columns (of the widest tensor) are done at once; one row at least.

    Returns:
        a function of the same inputs and outputs. It takes an empty batch, too, for which it does a row of zeros, since
        not all operations can do without.

    Example:
        >>> double = in_chunks(lambda x: {"y": 2 * x}, places=6)
        >>> double(tf.ones((5, 3), "int32"))["y"].shape  # in three steps
        TensorShape([5, 3])
    """

    def whole(*inputs):
        import tensorflow as tf

        rows = tf.shape(inputs[0])[0]
        width = tf.reduce_max([tf.shape(x)[1] if len(x.shape) > 1 else 1 for x in inputs])
        size = tf.maximum(1, places // tf.maximum(1, width))
        steps = -(-tf.maximum(1, rows) // size)
        missing = tf.cast(rows == 0, "int32")
        inputs = [tf.pad(x, [[0, missing]] + [[0, 0]] * (len(x.shape) - 1)) for x in inputs]

        part = tf.function(function, autograph=False).get_concrete_function(
            *(tf.TensorSpec((None, *x.shape[1:]), x.dtype) for x in inputs)
        )
        found = {
            name: tf.TensorArray(spec.dtype, steps, infer_shape=False, element_shape=spec.shape)
            for name, spec in part.structured_outputs.items()
        }

        def body(step, found):
            outputs = part(*(x[step * size : (step + 1) * size] for x in inputs))
            return step + 1, {name: array.write(step, outputs[name]) for name, array in found.items()}

        _, found = tf.while_loop(lambda step, _: step < steps, body, (0, found), parallel_iterations=1)
        return {name: array.concat()[:rows] for name, array in found.items()}

    return whole
