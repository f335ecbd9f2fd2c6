"""Some sentences of a batch are decoded from predicted codes."""

import keras
import numpy as np
import pytest
from compiled import numpy

from vq_keras import bottlenecks
from vq_keras.errors import InputError
from vq_keras.layers import ScheduledSampling


@pytest.fixture
def bottleneck():
    keras.utils.set_random_seed(0)
    layer = bottlenecks.VectorQuantizer(num_codes=6, initializer="normal")
    layer.build((None, None, 4))
    return layer


def test_a_share_of_whole_sentences_gets_the_likeliest_codes_from_the_first_step_on(bottleneck):
    layer = ScheduledSampling(bottleneck, share=0.25, first_step=1, seed=0)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2000, 3, 4)).astype("float32")
    logits = rng.normal(size=(2000, 3, 6)).astype("float32")
    np.testing.assert_array_equal(numpy(layer(vectors, logits, training=True)), vectors)
    mixed = numpy(layer(vectors, logits, training=True))
    assert int(layer.steps) == 2
    changed = (mixed != vectors).all(axis=(1, 2))
    np.testing.assert_array_equal(mixed[~changed], vectors[~changed])
    expected = numpy(bottleneck.decode(logits.argmax(axis=-1)))
    np.testing.assert_array_equal(mixed[changed], expected[changed])
    assert changed.mean() == pytest.approx(0.25, abs=0.04)  # Of 2,000 draws: four standard errors.
    assert (numpy(layer(vectors, logits, training=True)) != mixed).any()  # Each step draws anew.


def test_evaluation_changes_nothing_and_a_frozen_layer_counts_no_steps(bottleneck):
    layer = ScheduledSampling(bottleneck, share=1.0)
    vectors, logits = np.ones((2, 3, 4), "float32"), np.ones((2, 3, 6), "float32")
    np.testing.assert_array_equal(numpy(layer(vectors, logits, training=False)), vectors)
    assert int(layer.steps) == 0
    layer.trainable = False
    assert (numpy(layer(vectors, logits, training=True)) != vectors).any()
    assert int(layer.steps) == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"share": 1.5}, "the share of predicted codes is 1.5; give 0 to 1."),
        ({"share": 0.5, "first_step": -1}, "the first step with predicted codes is -1; give 0 or more."),
    ],
)
def test_numbers_out_of_range_are_refused(bottleneck, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        ScheduledSampling(bottleneck, **arguments)
