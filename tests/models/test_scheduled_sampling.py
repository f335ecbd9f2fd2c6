"""Some sentences of a batch are decoded from predicted codes."""

import keras
import numpy as np
import pytest
from compiled import numpy
from keras import ops

from vq_keras import bottlenecks
from vq_keras.errors import InputError
from vq_keras.models.scheduled_sampling import ScheduledSampling


class AlwaysThree:
    """In place of a search: code 3 for all latents of all sentences."""

    def __init__(self):
        keras.utils.set_random_seed(0)
        self.bottleneck = bottlenecks.VectorQuantizer(num_codes=6, initializer="normal")
        self.bottleneck.build((None, None, 4))

    def __call__(self, memory, mask, num_latents, max_latents):
        places = ops.arange(max_latents, dtype="int32")
        return ops.where(places < num_latents[:, None, None], 3, -1), ops.zeros((len(memory), 1))


def inputs(batch, latents=3):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(batch, latents, 4)).astype("float32")
    memory = rng.normal(size=(batch, 5, 4)).astype("float32")
    return vectors, memory, np.ones((batch, 5), bool), np.full((batch,), latents - 1, "int32")


def test_a_share_of_whole_sentences_gets_predicted_codes_from_the_first_step_on():
    search = AlwaysThree()
    layer = ScheduledSampling(search, share=0.25, first_step=1, seed=0)
    given = inputs(2000)
    vectors = given[0]
    np.testing.assert_array_equal(numpy(layer(*given, training=True)), vectors)
    mixed = numpy(layer(*given, training=True))
    assert int(layer.steps) == 2
    changed = (mixed != vectors).all(axis=(1, 2))
    np.testing.assert_array_equal(mixed[~changed], vectors[~changed])
    three = numpy(search.bottleneck.decode(np.array([[3]])))[0, 0]
    # The last latent is one that no sentence has.
    np.testing.assert_array_equal(mixed[changed], np.broadcast_to([three, three, 0 * three], mixed[changed].shape))
    assert changed.mean() == pytest.approx(0.25, abs=0.04)  # Of 2,000 draws: four standard errors.
    assert (numpy(layer(*given, training=True)) != mixed).any()  # Each step draws anew.


def test_evaluation_changes_nothing_and_a_frozen_layer_counts_no_steps():
    layer = ScheduledSampling(AlwaysThree(), share=1.0)
    given = inputs(2)
    np.testing.assert_array_equal(numpy(layer(*given, training=False)), given[0])
    assert int(layer.steps) == 0
    layer.trainable = False
    assert (numpy(layer(*given, training=True)) != given[0]).any()
    assert int(layer.steps) == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"share": 1.5}, "the share of predicted codes is 1.5; give 0 to 1."),
        ({"share": 0.5, "first_step": -1}, "the first step with predicted codes is -1; give 0 or more."),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        ScheduledSampling(AlwaysThree(), **arguments)
