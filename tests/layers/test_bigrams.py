"""Expected bigrams, against all ways to fill the slots one by one."""

import itertools
from collections import Counter

import keras
import numpy as np
import pytest
from compiled import compiled, numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from vq_keras.layers.bigrams import expected_bigram_f1

BEGINNING = -1


def bigrams(labels):
    return list(zip([BEGINNING, *labels[:-1]], labels, strict=True)) if len(labels) else []


def of_all_paths(p, sequence):
    """2 sum of min(expected count, its count) / (expected number + number), from probabilities (slots, labels)."""
    expected, total = Counter(), 0.0
    for path in itertools.product(range(p.shape[1]), repeat=len(p)):
        share = np.prod(p[np.arange(len(p)), path])
        written = bigrams([label for label, _ in itertools.groupby(path) if label])
        total += share * len(written)
        for bigram in written:
            expected[bigram] += share
    wanted = Counter(bigrams(sequence))
    matched = sum(min(expected[bigram], count) for bigram, count in wanted.items())
    return 2 * matched / (total + len(sequence))


def found(p, ids, num_labels, num_slots):
    """`expected_bigram_f1` of probabilities (batch, slots, labels), of which 0 is the blank's."""
    log_p = np.log(np.maximum(p, 1e-30))
    labels = np.take_along_axis(log_p, np.broadcast_to(ids[:, None], (*p.shape[:2], ids.shape[1])), axis=-1)
    repeats = np.pad((p[:, 1:, 1:] * p[:, :-1, 1:]).sum(-1), [(0, 0), (1, 0)])
    floats = [each.astype("float32") for each in (log_p[..., 0], labels, repeats)]
    counts = [np.asarray(each, "int32") for each in (ids, num_labels, num_slots)]
    return numpy(compiled(expected_bigram_f1)(*floats, *counts))


@pytest.mark.parametrize("sharpness", [0.3, 3.0])
def test_it_is_that_of_all_paths(sharpness):
    rng = np.random.default_rng(0)
    logits = sharpness * rng.normal(size=(6, 5, 4))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    # Equal neighbours, a bigram twice, slots that a sentence does not have, more labels than slots.
    sequences = [[1, 1, 1], [1, 2, 1, 2], [3], [2, 3, 3, 1], [1, 2, 3], [1, 2, 1, 2]]
    slots = [5, 5, 3, 4, 2, 3]
    ids = np.array([row + [0] * (4 - len(row)) for row in sequences])
    expected = [of_all_paths(row[:n], y) for row, n, y in zip(p, slots, sequences, strict=True)]
    np.testing.assert_allclose(found(p, ids, [len(row) for row in sequences], slots), expected, rtol=2e-5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=5), st.lists(st.integers(1, 3), min_size=1, max_size=5))
def test_of_one_certain_path_it_is_that_of_two_sentences(written, wanted):
    # A blank behind each label, so that equal ones stay two.
    path = np.array([label for each in written for label in (each, 0)] + [0] * (10 - 2 * len(written)))
    ids = np.array([wanted + [0] * (5 - len(wanted))])
    shared = sum((Counter(bigrams(written)) & Counter(bigrams(wanted))).values())
    result = found(np.eye(4)[path][None], ids, [len(wanted)], [10])
    # Logarithms of 1e-30 add up to some 300, whose differences are off by 3e-5.
    np.testing.assert_allclose(result, [2 * shared / (len(written) + len(wanted))], rtol=1e-4, atol=1e-6)


def test_padding_changes_nothing():
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(4), size=(1, 5))
    alone = found(p, np.array([[2, 3, 1]]), [3], [5])
    more = np.concatenate([p, rng.dirichlet(np.ones(4), size=(1, 3))], axis=1)
    np.testing.assert_allclose(found(more, np.array([[2, 3, 1, 0, 0]]), [3], [5]), alone, rtol=1e-6)


def test_a_bigram_counts_wherever_it_stands():
    p = np.eye(4)[[2, 3, 0, 1, 2, 3]][None]
    # 2 3 1 2 3 and 1 2 3 share (1, 2) and (2, 3), of 5 bigrams and of 3.
    assert found(p, np.array([[1, 2, 3]]), [3], [6])[0] == pytest.approx(4 / 8, rel=1e-5)


def test_its_gradient_leads_to_the_target():
    """From slots that draw it half of the time: it has equal neighbours and a bigram twice."""
    ids = np.array([[1, 2, 2, 3, 1, 2], [3, 3, 1, 0, 0, 0]], "int32")
    numbers, slots = np.array([6, 3], "int32"), np.array([12, 7], "int32")

    class Free(keras.Model):
        def __init__(self):
            super().__init__()
            self.logits = self.add_weight(shape=(2, 12, 4), initializer="zeros")

        def call(self, y):
            log_p = ops.log_softmax(ops.convert_to_tensor(self.logits), axis=-1)
            labels = ops.take_along_axis(log_p, ops.broadcast_to(y[:, None], (2, 12, 6)), axis=-1)
            p = ops.exp(log_p)
            repeats = ops.pad(ops.sum(p[:, 1:, 1:] * p[:, :-1, 1:], axis=-1), [[0, 0], [1, 0]])
            f1 = expected_bigram_f1(log_p[..., 0], labels, repeats, y, numbers, slots)
            self.add_loss(ops.sum(1.0 - f1))
            return f1

    path = np.array([[1, 0, 2, 0, 2, 0, 3, 0, 1, 0, 2, 0], [3, 0, 3, 0, 1, 0, 0, 0, 0, 0, 0, 0]])
    model = Free()
    model.logits.assign(2.0 * np.eye(4)[path] + np.random.default_rng(0).normal(scale=0.5, size=(2, 12, 4)))
    model.compile(keras.optimizers.Adam(0.1), jit_compile=False)
    before = numpy(model(ids))
    model.fit(ids, epochs=150, batch_size=2, shuffle=False, verbose=0)
    assert before.max() < 0.7
    np.testing.assert_allclose(numpy(model(ids)), 1.0, atol=0.02)
