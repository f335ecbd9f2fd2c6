import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from small_run import batches, make_model, weights_of

from vq_keras.errors import InputError
from vq_keras.training.checkpoints import Checkpoints
from vq_keras.training.fit import fit, make_deterministic


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class DieAt(keras.callbacks.Callback):
    def __init__(self, batch_number):
        super().__init__()
        self.batch_number = batch_number

    def on_train_batch_end(self, batch, logs=None):
        self.batch_number -= 1
        if self.batch_number == 0:
            raise Killed


def assert_same_weights(model, another):
    for old, new in zip(weights_of(model), weights_of(another), strict=True):
        np.testing.assert_array_equal(old, new)


def seeded_model(**arguments):
    keras.utils.set_random_seed(5)
    return make_model(**arguments)


def test_rows_are_means_over_their_interval(tmp_path):
    # A model that does not move: the loss of a batch is known beforehand.
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    loss = [float(np.mean(next(batches(step))[1] ** 2)) for step in range(25)]

    history = fit(model, batches, steps=25, run_dir=tmp_path, interval=10)

    assert [row["step"] for row in history] == [10, 20, 25]
    expected = [np.mean(loss[:10]), np.mean(loss[10:20]), np.mean(loss[20:])]
    # float32 means in another order.
    np.testing.assert_allclose([row["loss"] for row in history], expected, rtol=1e-5)
    assert int(model.optimizer.iterations.value) == 25


def test_validation_is_over_all_of_its_batches_at_each_interval(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    apart = [next(batches(step)) for step in (100, 101, 102)]

    class Apart(keras.utils.PyDataset):
        def __len__(self):
            return len(apart)

        def __getitem__(self, index):
            return apart[index]

    history = fit(model, batches, steps=4, run_dir=tmp_path, interval=2, validation=Apart())
    expected = np.mean([np.mean(y**2) for _, y in apart])
    np.testing.assert_allclose([row["val_loss"] for row in history], [expected] * 2, rtol=1e-5)
    assert "val_loss" in (tmp_path / "history.csv").read_text().splitlines()[0]


def test_the_table_of_the_history(tmp_path):
    history = fit(make_model(), batches, steps=5, run_dir=tmp_path, interval=2)
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "loss", "mae"] or list(rows[0]) == ["step", "mae", "loss"]
    assert [{name: float(value) for name, value in row.items()} for row in rows] == history
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "history.csv"]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    model, run_dir = seeded_model(), tmp_path_factory.mktemp("whole")
    history = fit(model, batches, steps=25, run_dir=run_dir, interval=10)
    return model, history, (run_dir / "history.csv").read_text()


@pytest.mark.parametrize("death", [3, 10, 24])
def test_a_run_that_died_ends_as_one_that_did_not(tmp_path, whole_run, death):
    with pytest.raises(Killed):
        fit(seeded_model(), batches, steps=25, run_dir=tmp_path / "cut", interval=10, callbacks=[DieAt(death)])

    asked = []

    def remembered(start):
        asked.append(start)
        return batches(start)

    again = seeded_model()
    history = fit(again, remembered, steps=25, run_dir=tmp_path / "cut", interval=10)
    # `DieAt` is no callback of ours, so Keras calls it at once, after the step: 10 dies before its checkpoint.
    assert asked == [(death - 1) // 10 * 10]
    model, expected, table = whole_run
    assert history == expected
    assert (tmp_path / "cut/history.csv").read_text() == table
    assert_same_weights(again, model)


def test_a_finished_run_returns_at_once(tmp_path):
    # The averaged weights of `use_ema` are put in place after the last checkpoint; a restored run must have them, too.
    def optimizer():
        return keras.optimizers.Adam(0.01, use_ema=True)

    whole = seeded_model(optimizer=optimizer())
    expected = fit(whole, batches, steps=4, run_dir=tmp_path, interval=2)
    (tmp_path / "history.csv").unlink()

    def never(start):
        raise AssertionError("no batch is needed")

    again = make_model(optimizer=optimizer())
    assert fit(again, never, steps=4, run_dir=tmp_path, interval=2) == expected
    assert (tmp_path / "history.csv").exists()
    assert_same_weights(again, whole)


def test_a_run_can_be_prolonged(tmp_path):
    fit(make_model(), batches, steps=3, run_dir=tmp_path, interval=2)
    history = fit(make_model(), batches, steps=6, run_dir=tmp_path, interval=2)
    assert [row["step"] for row in history] == [2, 3, 5, 6]


def test_keeps_as_many_checkpoints_as_are_wanted(tmp_path):
    model = seeded_model()
    after = []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            after.append(np.array(np.asarray(self.model.layers[0].kernel)))

    fit(model, batches, steps=10, run_dir=tmp_path, interval=2, callbacks=[Look()], keep=4)
    assert Checkpoints(tmp_path / "checkpoints").restore_mean(model, 4) == [4, 6, 8, 10]
    np.testing.assert_allclose(np.asarray(model.layers[0].kernel), np.mean(after[1:], axis=0), atol=1e-7)


def test_several_steps_at_a_time(tmp_path):
    def model():
        model = seeded_model()
        model.steps_per_execution = 2
        return model

    one_at_a_time = seeded_model()
    expected = fit(one_at_a_time, batches, steps=6, run_dir=tmp_path / "one", interval=4)
    history = fit(model(), batches, steps=6, run_dir=tmp_path / "two", interval=4)
    assert [row["step"] for row in history] == [4, 6]
    # Compiled otherwise, so rounded otherwise.
    assert history[-1]["loss"] == pytest.approx(expected[-1]["loss"], rel=1e-4)
    with pytest.raises(InputError, match="7 steps in intervals of 4 cannot be run 2 at a time"):
        fit(model(), batches, steps=7, run_dir=tmp_path / "two", interval=4)


@pytest.mark.parametrize("length", [3, 5])
def test_batches_that_run_out(tmp_path, length):
    def few(start):
        return (batch for batch, _ in zip(batches(start), range(length), strict=False))

    with (
        pytest.warns(UserWarning, match="ran out of data"),
        pytest.raises(InputError, match=f"after {length} of 6 steps"),
    ):
        fit(make_model(), few, steps=6, run_dir=tmp_path, interval=4)


@pytest.mark.filterwarnings("ignore:Limiting")
def test_another_callback_may_stop_early(tmp_path):
    class Enough(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                self.model.stop_training = True

    history = fit(make_model(), batches, steps=9, run_dir=tmp_path, interval=5, callbacks=[Enough()])
    assert [row["step"] for row in history] == [3]


def test_what_callbacks_change_is_in_the_checkpoint(tmp_path):
    class Shift(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.layers[-1].bias.assign([42.0])
            logs["extra"] = 1.5

    fit(make_model(), batches, steps=2, run_dir=tmp_path, interval=2, callbacks=[Shift()])
    again = make_model()
    assert fit(again, batches, steps=2, run_dir=tmp_path)[0]["extra"] == 1.5
    assert float(again.layers[-1].bias.value[0]) == 42.0


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.data")
def test_a_tensorflow_dataset(tmp_path):
    import tensorflow as tf

    def dataset(start):
        numbers = tf.data.Dataset.range(start, 10**9)
        return numbers.map(lambda n: (tf.fill((16, 4), tf.cast(n, "float32")), tf.ones((16, 1))))

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    fit(model, dataset, steps=3, run_dir=tmp_path, interval=2)
    history = fit(model, dataset, steps=5, run_dir=tmp_path, interval=2)
    # Batch n is full of n, so the prediction is 4 n and the target 1.
    expected = [np.mean([(4 * n - 1) ** 2 for n in part]) for part in ([0, 1], [2], [3, 4])]
    assert [row["loss"] for row in history] == expected


def test_bad_arguments(tmp_path):
    for wrong in ({"steps": 0}, {"interval": 0}):
        with pytest.raises(InputError, match="at least 1"):
            fit(make_model(), batches, **({"steps": 1, "run_dir": tmp_path} | wrong))


def test_make_deterministic():
    def draw():
        make_deterministic(9)
        return keras.ops.convert_to_numpy(keras.random.normal((3,))), np.random.random(), random.random()

    try:
        first, second = draw(), draw()
    finally:
        if keras.backend.backend() == "tensorflow":
            # There is no public way back.
            from tensorflow.python.framework import config

            config.disable_op_determinism()
    np.testing.assert_array_equal(first[0], second[0])
    assert first[1:] == second[1:]


@pytest.mark.slow
def test_sigkill_at_random_moments(tmp_path):
    """Kills a run again and again; in the end it has the weights and the history of one that was left alone."""
    here = Path(__file__)
    environment = os.environ | {"PYTHONPATH": str(here.parents[2])}

    def start(name):
        command = [sys.executable, str(here.with_name("small_run.py")), str(tmp_path / name), "120", "3"]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    whole = start("whole")
    moments = random.Random(4)
    for _ in range(3):
        run = start("cut")
        for _ in range(moments.randint(2, 8)):
            assert run.stdout.readline() == "interval\n"
        # Steps, checkpoint and table of an interval take some 50 ms together.
        time.sleep(moments.uniform(0, 0.1))
        run.kill()
        run.communicate()
        assert run.returncode == -signal.SIGKILL
    intervals = {}
    for name, run in (("cut", start("cut")), ("whole", whole)):
        output, _ = run.communicate()
        assert output.endswith("done\n")
        intervals[name] = output.count("interval")
    # Each killed run made an interval at least, and left it to the next.
    assert intervals["whole"] == 40
    assert intervals["cut"] <= 37
    assert (tmp_path / "cut/history.csv").read_bytes() == (tmp_path / "whole/history.csv").read_bytes()
    with np.load(tmp_path / "cut/weights.npz") as cut, np.load(tmp_path / "whole/weights.npz") as left_alone:
        assert len(cut) == 15
        for name in left_alone:
            np.testing.assert_array_equal(cut[name], left_alone[name])
