"""A batch in parts: what it gives, and how much of it at once."""

import keras
import numpy as np
import pytest

from vq_keras.chunks import in_chunks

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="graphs of TensorFlow")


@pytest.mark.parametrize(
    ("rows", "columns", "steps"), [(0, 3, 1), (1, 3, 1), (2, 3, 1), (5, 3, 3), (5, 9, 5), (4, 0, 2)]
)
def test_all_rows_are_done_in_order_and_a_few_at_once(rows, columns, steps):
    import tensorflow as tf

    calls = tf.Variable(0)

    def function(x, y):
        calls.assign_add(1)
        return {"x": 2 * x, "sum": tf.reduce_sum(y, axis=(1, 2))}

    x = np.random.default_rng(0).integers(0, 100, (rows, columns), dtype="int32")
    y = np.random.default_rng(1).integers(0, 9, (rows, 2, 2)).astype("float32")
    whole = tf.function(in_chunks(function, places=6), autograph=False)
    outputs = whole(tf.constant(x), tf.constant(y))
    np.testing.assert_array_equal(outputs["x"], 2 * x)
    np.testing.assert_array_equal(outputs["sum"], y.sum((1, 2)))
    # 6 // 3 rows of three columns, one of nine, and three of none, where the other input has two.
    assert int(calls) == steps
