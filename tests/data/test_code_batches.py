import itertools

import keras
import numpy as np
import pytest

from vq_keras.data.batches import training_order
from vq_keras.data.code_batches import code_batches
from vq_keras.errors import InputError


def first(batches, count):
    if isinstance(batches, keras.utils.PyDataset):
        return [batches[index]["codes"] for index in range(count)]
    return [batch["codes"].numpy() for batch in itertools.islice(batches, count)]


def test_batches_come_in_the_order_of_images_and_go_on_where_a_run_was_broken_off():
    codes = np.random.default_rng(0).integers(0, 512, (10, 3, 4)).astype("int32")
    expected = [codes[indices] for indices, _ in itertools.islice(training_order(10, 4, seed=2), 6)]
    for start in (0, 3):
        batches = first(code_batches(codes, batch_size=4, seed=2, start_step=start), 6 - start)
        np.testing.assert_array_equal(batches, expected[start:])
        assert batches[0].dtype == np.int32


def test_no_codes_are_refused_at_once():
    with pytest.raises(InputError, match="num_images must be 1 or above, but it is 0"):
        code_batches(np.zeros((0, 3, 4), "int32"), batch_size=4, seed=2)
