import itertools
import resource

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest

from vq_keras.data import batches, test_batches, training_batches, training_order
from vq_keras.errors import InputError

on_tensorflow = keras.backend.backend() == "tensorflow"


def expected_order(num_images, batch_size, seed, num_steps):
    """All steps from the first one on, from whole epochs laid end to end."""
    num_epochs = -(-num_steps * batch_size // num_images)
    epochs = [np.random.default_rng([seed, epoch]) for epoch in range(num_epochs)]
    parts = [(random.permutation(num_images), random.random(num_images) < 0.5) for random in epochs]
    indices, flips = (np.concatenate(part)[: num_steps * batch_size] for part in zip(*parts, strict=True))
    return indices.reshape(num_steps, batch_size), flips.reshape(num_steps, batch_size)


def numbered_images(number):
    """Images 4 high and 5 wide that tell their index (up to 255) and whether they are mirrored."""
    images = np.zeros((number, 4, 5, 3), np.uint8)
    images[..., 0] = np.arange(number)[:, None, None]
    images[..., 1] = np.arange(5)
    return images


def take(pipeline, number=None):
    return [np.asarray(batch["images"]) for batch in itertools.islice(pipeline, number)]


@pytest.mark.parametrize("num_images, batch_size", [(12, 4), (13, 4), (3, 8), (1, 1)])
def test_every_epoch_holds_every_image_once(num_images, batch_size):
    steps = itertools.islice(training_order(num_images, batch_size, seed=3), 50)
    indices = np.concatenate([indices for indices, _ in steps])
    for epoch in range(len(indices) // num_images):
        part = indices[epoch * num_images : (epoch + 1) * num_images]
        assert sorted(part) == list(range(num_images))


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(
    num_images=st.integers(1, 40),
    batch_size=st.integers(1, 50),
    seed=st.integers(0, 2**40),
    start_step=st.integers(0, 30),
)
def test_a_later_start_gives_the_rest_of_the_same_order(num_images, batch_size, seed, start_step):
    indices, flips = expected_order(num_images, batch_size, seed, start_step + 5)
    steps = training_order(num_images, batch_size, seed, start_step)
    for expected_indices, expected_flips in zip(indices[start_step:], flips[start_step:], strict=True):
        got_indices, got_flips = next(steps)
        np.testing.assert_array_equal(got_indices, expected_indices)
        np.testing.assert_array_equal(got_flips, expected_flips)


def test_each_epoch_is_drawn_once_and_no_earlier_one(monkeypatch):
    seeds = []
    default_rng = np.random.default_rng
    batches._epoch.cache_clear()
    monkeypatch.setattr(np.random, "default_rng", lambda seed: seeds.append(seed) or default_rng(seed))
    steps = training_order(num_images=1000, batch_size=10, seed=5, start_step=10**9 + 90)
    for _ in range(15):
        next(steps)
    assert seeds == [[5, 10**7], [5, 10**7 + 1]]


def test_seeds_and_epochs_differ():
    def first_epochs(seed):
        (indices, flips) = next(training_order(num_images=500, batch_size=1000, seed=seed))
        return indices.reshape(2, 500), flips.reshape(2, 500)

    (indices, flips), (other_indices, other_flips) = first_epochs(0), first_epochs(1)
    # Two random orders of 500 agree in one place on average, two rows of coins in 250.
    for a, b in [(indices[0], indices[1]), (indices[0], other_indices[0])]:
        assert (a == b).sum() < 10
    for a, b in [(flips[0], flips[1]), (flips[0], other_flips[0])]:
        assert 180 < (a == b).sum() < 320
        # Five standard deviations (11.2) of 500 coins.
        assert 194 < a.sum() < 306


@pytest.mark.parametrize("start_step", [0, 7])
@pytest.mark.parametrize("flip", [True, False])
def test_training_batches_are_the_images_in_that_order(flip, start_step):
    """On each backend the batches equal one expectation, so they equal each other."""
    images = numbered_images(50)
    indices, flips = expected_order(50, 8, seed=2, num_steps=start_step + 15)
    got = take(training_batches(images, 8, seed=2, start_step=start_step, flip=flip), 15)
    for batch, step_indices, step_flips in zip(got, indices[start_step:], flips[start_step:], strict=True):
        expected = [
            np.fliplr(images[index]) if flip and mirrored else images[index]
            for index, mirrored in zip(step_indices, step_flips, strict=True)
        ]
        assert batch.dtype == np.uint8
        np.testing.assert_array_equal(batch, expected)
    np.testing.assert_array_equal(images, numbered_images(50))


def test_a_batch_may_be_larger_than_the_data():
    (batch,) = take(training_batches(numbered_images(3), 7, seed=0), 1)
    assert sorted(np.bincount(batch[:, 0, 0, 0])) == [2, 2, 3]


def test_test_batches_hold_every_image_once_in_order():
    images = numbered_images(11)
    pipeline = test_batches(images, 4)
    for _ in range(2):
        got = take(pipeline)
        assert [len(batch) for batch in got] == [4, 4, 3]
        np.testing.assert_array_equal(np.concatenate(got), images)


def class_of(images):
    """A class for each of the `numbered_images`: their classes are told by their pixels alone."""
    return 7 * images[:, 0, 0, 0].astype(np.int32) % 251


@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(
    num_images=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 99), start_step=st.integers(0, 30)
)
def test_an_image_keeps_its_class_over_epochs_and_a_break(num_images, batch_size, seed, start_step):
    images = numbered_images(num_images)
    steps = 2 + 2 * num_images // batch_size
    pipeline = training_batches(images, batch_size, seed, start_step, classes=class_of(images))
    without = training_batches(images, batch_size, seed, start_step)
    for batch, same in zip(itertools.islice(pipeline, steps), without, strict=False):
        assert np.asarray(batch["classes"]).dtype == np.int32
        np.testing.assert_array_equal(batch["classes"], class_of(np.asarray(batch["images"])))
        np.testing.assert_array_equal(batch["images"], same["images"])


def test_test_batches_have_the_classes_in_order():
    images = numbered_images(11)
    got = [np.asarray(batch["classes"]) for batch in test_batches(images, 4, class_of(images))]
    assert [len(classes) for classes in got] == [4, 4, 3]
    assert np.concatenate(got).tolist() == [0, 7, 14, 21, 28, 35, 42, 49, 56, 63, 70]


@pytest.mark.parametrize(
    "classes, message",
    [
        (np.zeros(4, np.int32), r"one for each of the 5 images, but they are int32 of shape \(4,\)"),
        (np.zeros(5, np.int64), r"must be int32, .* but they are int64 of shape \(5,\)"),
        (np.zeros((5, 1), np.int32), r"int32 of shape \(5, 1\)"),
    ],
)
def test_classes_of_another_kind_are_told_at_once(classes, message):
    with pytest.raises(InputError, match=message):
        training_batches(numbered_images(5), 2, seed=0, classes=classes)
    with pytest.raises(InputError, match=message):
        test_batches(numbered_images(5), 2, classes)


@pytest.mark.skipif(not on_tensorflow, reason="tf.data pipelines run on the TensorFlow backend")
def test_shapes_are_static_on_tensorflow():
    images = numbered_images(11)
    assert training_batches(images, 4, seed=0).element_spec["images"].shape.as_list() == [4, 4, 5, 3]
    assert test_batches(images, 4).element_spec["images"].shape.as_list() == [None, 4, 5, 3]
    assert training_batches(images, 4, 0, classes=class_of(images)).element_spec["classes"].shape.as_list() == [4]
    assert test_batches(images, 4, class_of(images)).element_spec["classes"].shape.as_list() == [None]


class Recorder(keras.Model):
    """Learns nothing, and remembers the first channel's corner of every image it was trained on: the index."""

    def __init__(self):
        super().__init__()
        self.scale = keras.layers.Rescaling(1.0)
        self.bias = self.add_weight(shape=(), name="bias")
        self.seen = []

    def call(self, inputs):
        return self.scale(inputs["images"]) + self.bias

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        self.seen.append(keras.ops.convert_to_numpy(x["images"])[:, 0, 0, 0])
        return keras.ops.mean(y_pred)


@pytest.mark.filterwarnings("error:.*ran out of data")
def test_keras_takes_them_and_its_epochs_go_on_in_the_order():
    model = Recorder()
    model.compile("sgd", run_eagerly=True)
    model.fit(training_batches(numbered_images(10), 4, seed=1), steps_per_epoch=3, epochs=4, shuffle=False, verbose=0)
    indices, _ = expected_order(10, 4, seed=1, num_steps=12)
    np.testing.assert_array_equal(np.concatenate(model.seen[-12:]), indices.ravel())

    model.seen.clear()
    model.evaluate(test_batches(numbered_images(10), 4), verbose=0)
    np.testing.assert_array_equal(np.concatenate(model.seen), np.arange(10))


def test_images_are_neither_copied_nor_put_into_a_graph(tmp_path):
    # 2.5 GB in a file of holes: more than a graph may hold, and too much to be overlooked.
    images = np.memmap(tmp_path / "images", np.uint8, "w+", shape=(200, 2048, 2048, 3))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    take(training_batches(images, 1, seed=0), 2)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    # Ten images of 12.6 MB made ready ahead, each mapped, gathered and copied into a tensor.
    assert kilobytes < 0.6e6


@pytest.mark.parametrize(
    "change, message",
    [
        ({"images": np.zeros((0, 4, 4, 3), np.uint8)}, "no images"),
        ({"images": np.zeros((5, 4, 4, 3), np.float32)}, "float32"),
        ({"images": np.zeros((5, 4, 4), np.uint8)}, r"\(5, 4, 4\)"),
        ({"batch_size": 0}, "batch_size must be 1 or above, but it is 0"),
        ({"seed": -1}, "seed must be 0 or above"),
        ({"start_step": -2}, "start_step must be 0 or above"),
    ],
)
def test_bad_input_is_told_at_once(change, message):
    arguments = {"images": numbered_images(5), "batch_size": 2, "seed": 0, "start_step": 0} | change
    with pytest.raises(InputError, match=message):
        training_batches(**arguments)
    if change.keys() <= {"images", "batch_size"}:
        with pytest.raises(InputError, match=message):
            test_batches(arguments["images"], arguments["batch_size"])


def test_an_order_of_nothing_is_an_error():
    with pytest.raises(InputError, match="num_images must be 1 or above, but it is 0"):
        training_order(num_images=0, batch_size=2, seed=0)
