"""Connectionist temporal classification, against all alignments one by one."""

import itertools

import keras
import numpy as np
import pytest
from compiled import compiled, numpy
from keras import ops

from vq_keras.layers.ctc import Slots, ctc_nll


def of_all_alignments(log_p, sequence):
    total = 0.0
    for path in itertools.product(range(log_p.shape[1]), repeat=len(log_p)):
        if [label for label, before in zip(path, (0, *path), strict=False) if label not in (0, before)] == sequence:
            total += np.exp(sum(log_p[t, label] for t, label in enumerate(path)))
    return -np.log(total)


def own(log_p, ids):
    return np.take_along_axis(log_p, np.broadcast_to(ids[:, None], (*log_p.shape[:2], ids.shape[1])), axis=-1)


def random_log_p(*shape):
    logits = np.random.default_rng(0).normal(size=shape).astype("float32")
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


# Two equal labels need a blank between; one label, or none that fits more slots than it; as many labels as slots.
SEQUENCES = [[1, 1], [2, 3, 2], [3], [1, 2, 3, 1, 2], [2, 2, 2]]


def test_it_sums_over_all_alignments():
    log_p = random_log_p(len(SEQUENCES), 5, 4)
    ids = np.array([[*row, *[0] * (5 - len(row))] for row in SEQUENCES], "int32")
    numbers, slots = np.array([len(row) for row in SEQUENCES], "int32"), np.array([5, 5, 3, 5, 5], "int32")
    found = numpy(compiled(ctc_nll)(log_p[..., 0], own(log_p, ids), ids, numbers, slots))
    expected = [of_all_alignments(row[:n], list(y)) for row, n, y in zip(log_p, slots, SEQUENCES, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_more_labels_than_the_slots_take_are_as_good_as_impossible():
    log_p, ids = random_log_p(1, 2, 4), np.array([[2, 2]], "int32")
    found = compiled(ctc_nll)(log_p[..., 0], own(log_p, ids), ids, np.array([2], "int32"), np.array([2], "int32"))
    assert numpy(found)[0] > 1e8


def test_a_step_down_the_gradient_lowers_the_loss_as_it_says():
    """The derivative along the negative gradient is minus its square, on whatever backend."""
    log_p, ids = random_log_p(2, 6, 4), np.array([[2, 2, 3], [1, 0, 0]], "int32")
    numbers, slots = np.array([3, 1], "int32"), np.array([6, 4], "int32")

    class Free(keras.Model):
        def __init__(self):
            super().__init__()
            self.logits = self.add_weight(shape=log_p.shape, initializer="zeros")

        def call(self, y):
            log_probs = ops.log_softmax(ops.convert_to_tensor(self.logits), axis=-1)
            labels = ops.take_along_axis(log_probs, ops.broadcast_to(y[:, None], (2, 6, 3)), axis=-1)
            loss = ops.sum(ctc_nll(log_probs[..., 0], labels, y, numbers, slots))
            self.add_loss(loss)
            return loss

    model = Free()
    model.logits.assign(log_p)
    rate = 1e-3
    model.compile(keras.optimizers.SGD(rate), jit_compile=False)
    before = float(model(ids))
    model.train_on_batch(ids)
    gradient = (log_p - numpy(model.logits)) / rate
    assert not gradient[1, 4:].any()  # Slots that the sentence does not have.
    assert np.abs(gradient[0]).min() > 0
    # To the second order, and to the rounding of losses of ten nats.
    assert (before - float(model(ids))) / rate == pytest.approx((gradient**2).sum(), rel=0.01)


def test_slots_are_two_for_each_place_and_alike_at_first():
    keras.utils.set_random_seed(0)
    layer = Slots()
    x = np.random.default_rng(0).normal(size=(2, 3, 16)).astype("float32")
    y = numpy(layer(x))
    kernel = numpy(layer.split.kernel)
    np.testing.assert_allclose(y[:, 0::2], x + x @ kernel[:, :16], atol=1e-6)
    np.testing.assert_allclose(y[:, 1::2], x + x @ kernel[:, 16:], atol=1e-6)
    assert np.abs(y[:, 0::2] - y[:, 1::2]).max() < 0.5
