"""Ids as clients send them: which are mended, and what is refused with which words."""

import keras
import numpy as np
import pytest

from vq_keras.id_requests import bounded_source, checked_codes, checked_memory, checked_target

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="graphs of TensorFlow")


def bounded(ids, max_length=4):
    import tensorflow as tf

    ids = np.array(ids, "int32")
    source, truncated = tf.function(lambda ids: bounded_source(ids, max_length, 10))(tf.constant(ids))
    return source.numpy().tolist(), truncated.numpy().tolist()


def test_sources_are_cut_at_the_greatest_length_and_end_there():
    found = bounded([[5, 6, 7, 8, 9, 1], [5, 6, 7, 1, 0, 0], [5, 6, 7, 8, 1, 0], [5, 6, 1, 0, 0, 0]])
    assert found == ([[5, 6, 7, 1], [5, 6, 7, 1], [5, 6, 7, 1], [5, 6, 1, 0]], [True, False, True, False])


def test_what_follows_an_end_is_padding():
    # As TF Serving fills up a shorter request: with its own first id.
    assert bounded([[5, 6, 1, 5, 5, 5], [1, 1, 1, 1, 1, 1]]) == ([[5, 6, 1, 0], [1, 0, 0, 0]], [False, False])


def test_a_row_without_ids_is_an_end_alone():
    assert bounded([[0, 0, 0], [5, 1, 0]]) == ([[1, 0, 0], [5, 1, 0]], [False, False])
    assert bounded([[], []]) == ([[1], [1]], [False, False])
    assert bounded(np.zeros((0, 3))) == ([], [])


def refused(message, function, *inputs):
    import tensorflow as tf

    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        tf.function(function)(*(tf.constant(x) for x in inputs))


@pytest.mark.parametrize("wrong", [-1, 10, 2**31 - 1, -(2**31)])
def test_ids_outside_of_the_vocabulary_are_refused(wrong):
    ids, good = np.array([[5, 1], [wrong, 1]], "int32"), np.array([[5, 1], [6, 1]], "int32")
    message = "_ids are not all within the vocabulary, 0 to 9"
    refused("source" + message, lambda x: bounded_source(x, 4, 10), ids)
    refused("target" + message, lambda x, y: checked_target(x, y, 4, 10), ids, good)


def test_tensors_that_do_not_fit_each_other_are_refused():
    ids, memory = np.ones((2, 3), "int32"), np.ones((2, 3, 8), "float32")

    def target(x, y):
        return checked_target(x, y, 4, 10)

    def read(memory, mask):
        return checked_memory(memory, mask, 4)

    def codes(codes, memory):
        return checked_codes(codes, memory, 5)

    refused("source_ids and target_ids differ in rows", target, ids[:1], ids)
    refused("target_ids has a number of columns out of range, which is 1 to.*4", target, ids.repeat(2, axis=1), ids)
    refused("target_ids has a number of columns out of range", target, ids[:, :0], ids)
    refused("memory and mask differ in rows or columns", read, memory, ids[:1])
    refused("memory and mask differ in rows or columns", read, memory, ids[:, :1])
    refused("memory has a number of columns out of range, which is 1 to.*4", read, np.ones((1, 5, 8)), np.ones((1, 5)))
    refused("memory has a number of columns out of range", read, memory[:, :0], ids[:, :0])
    refused("memory and codes differ in rows", codes, ids[:1], memory)
    refused("codes has a number of columns out of range, which is 1 to.*3", codes, ids.repeat(2, axis=1), memory)
    refused("codes has a number of columns out of range", codes, ids[:, :0], memory)
    refused("codes are not all within -1 to 4", codes, 5 * ids, memory)
    refused("codes are not all within -1 to 4", codes, -2 * ids, memory)
