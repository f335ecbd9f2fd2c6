import io
import sys

import keras
import numpy as np
import pytest
from keras import ops
from small_run import batches, make_model
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vq_keras.errors import InputError, TrainingStopped
from vq_keras.training import callbacks as module
from vq_keras.training.callbacks import ConsoleProgress, StopOnFailure, TensorBoardLog, WarnOfDyingCodes
from vq_keras.training.fit import fit


class Terminal(io.StringIO):
    def isatty(self):
        return True


@keras.saving.register_keras_serializable(package="tests")
class WithCodes(keras.Model):
    """A stand-in for an autoencoder: its "codes_in_use" is the target of the batch."""

    def __init__(self):
        inputs = keras.Input((4,))
        super().__init__(inputs, keras.layers.Dense(1)(inputs))
        self.in_use = keras.metrics.Mean(name="codes_in_use")

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        self.in_use.update_state(y)
        return super().compute_metrics(x, y, y_pred, sample_weight)


def model_with_codes():
    model = WithCodes()
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model


def batches_with_codes(in_use):
    """Batches whose "codes_in_use" is `in_use(number of the batch)`."""

    def from_step(start):
        while True:
            yield np.zeros((2, 4), "float32"), np.full((2, 1), in_use(start), "float32")
            start += 1

    return from_step


def scalars(directory, name):
    log = EventAccumulator(str(directory))
    log.Reload()
    return {event.step: event.value for event in log.Scalars(name)}


# Progress ----------------------------------------------------------------------------------------------------------


class Clock:
    """Time that goes on by a tenth of a second at each look."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        self.now += 0.1
        return self.now


def test_a_line_an_interval_where_there_is_no_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "time", Clock())
    progress = ConsoleProgress(50, batch_size=16, columns=("codes_in_use", "absent"), name="autoencoder")
    # In one thread, so that each step sees its own time.
    progress.async_safe = False
    run = batches_with_codes(lambda step: 7)
    fit(model_with_codes(), run, steps=20, run_dir=tmp_path, interval=10, callbacks=[progress])
    out, err = capsys.readouterr()
    assert out == ""
    # Ten steps a second with 16 images each; 40, then 30 of 50 steps are left.
    assert err.splitlines() == [
        "autoencoder  10/50  loss 49  codes_in_use 7  160 images/s  0:00:04 left",
        "autoencoder  20/50  loss 49  codes_in_use 7  160 images/s  0:00:03 left",
    ]

    # A run that goes on counts the steps of the one before, but not in its speed.
    fit(model_with_codes(), run, steps=30, run_dir=tmp_path, interval=10, callbacks=[progress])
    assert capsys.readouterr().err == "autoencoder  30/50  loss 49  codes_in_use 7  160 images/s  0:00:02 left\n"


def test_the_speed_is_that_of_the_recent_past(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    progress = ConsoleProgress(10_000, batch_size=1)
    progress.on_epoch_begin(0)
    for batch in range(300):
        clock.now += 0.9 if batch < 200 else 0.4
        progress.on_train_batch_end(batch, {"loss": 1.0})
    # The last hundred steps took half a second each.
    assert "2 images/s  1:20:50 left" in progress._figures({})


def test_one_line_kept_up_to_date_on_a_terminal(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    progress = ConsoleProgress(20, batch_size=16, name="predictor")
    fit(make_model(), batches, steps=20, run_dir=tmp_path, interval=10, callbacks=[progress])
    text = terminal.getvalue()
    assert "predictor" in text and "20/20" in text and "images/s" in text and "0:00:00 left" in text
    # The cursor is shown again.
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l")


def test_the_terminal_is_given_back_after_a_failure(tmp_path, monkeypatch):
    class Fail(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    progress = ConsoleProgress(20, batch_size=16)
    with pytest.raises(KeyboardInterrupt):
        fit(make_model(), batches, steps=20, run_dir=tmp_path, interval=10, callbacks=[progress, Fail()])
    assert terminal.getvalue().rfind("\x1b[?25h") > terminal.getvalue().rfind("\x1b[?25l")


# TensorBoard -------------------------------------------------------------------------------------------------------


def test_scalars_are_those_of_the_history(tmp_path):
    history = fit(make_model(), batches, 5, tmp_path, interval=2, callbacks=[TensorBoardLog(tmp_path / "logs")])
    for name in ("loss", "mae"):
        # Event files hold float32.
        assert scalars(tmp_path / "logs", name) == {row["step"]: np.float32(row[name]) for row in history}
    # The rate of the next update: 1e-3 more at each step of the warm-up.
    assert scalars(tmp_path / "logs", "learning_rate") == pytest.approx({2: 2e-3, 4: 4e-3, 5: 5e-3})


def test_a_resumed_run_shows_each_step_once(tmp_path):
    class Die(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    logs = tmp_path / "logs"
    run = batches_with_codes(lambda step: step)
    with pytest.raises(KeyboardInterrupt):
        # Dies after TensorBoard got step 4 and before the checkpoint of step 4.
        fit(model_with_codes(), run, 6, tmp_path, interval=2, callbacks=[TensorBoardLog(logs), Die()])
    fit(model_with_codes(), run, 6, tmp_path, interval=2, callbacks=[TensorBoardLog(logs)])
    log = EventAccumulator(str(logs))
    log.Reload()
    assert [(event.step, event.value) for event in log.Scalars("codes_in_use")] == [(2, 0.5), (4, 2.5), (6, 4.5)]


def test_pictures(tmp_path):
    calls = []

    def pictures():
        calls.append(1)
        return {"reconstructions": np.full((4, 6, 3), 9, "uint8"), "grey": np.full((4, 6, 1), 9, "uint8")}

    log = TensorBoardLog(tmp_path / "logs", images=pictures, image_steps=5)
    fit(make_model(), batches, steps=12, run_dir=tmp_path, interval=2, callbacks=[log])
    written = EventAccumulator(str(tmp_path / "logs"), size_guidance={"images": 0})
    written.Reload()
    # The first ends of intervals at 5 and 10 or beyond.
    assert [event.step for event in written.Images("reconstructions")] == [6, 10]
    assert (written.Images("grey")[0].height, written.Images("grey")[0].width) == (4, 6)
    assert len(calls) == 2


def test_texts(tmp_path):
    log = TensorBoardLog(tmp_path / "logs", texts=lambda: {"translations": "| a | b |"}, image_steps=5)
    fit(make_model(), batches, steps=12, run_dir=tmp_path, interval=2, callbacks=[log])
    written = EventAccumulator(str(tmp_path / "logs"))
    written.Reload()
    events = written.Tensors("translations/text_summary")
    assert [event.step for event in events] == [6, 10]
    assert events[0].tensor_proto.string_val == [b"| a | b |"]


# Stops -------------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_at_once(tmp_path):
    def spoilt(start):
        for step, (x, y) in enumerate(batches(start), start):
            yield x, (y * np.nan if step == 13 else y)

    seen = []
    interval = 1000

    class Count(keras.callbacks.Callback):
        async_safe = True

        def on_train_batch_end(self, batch, logs=None):
            seen.append(batch)

    with pytest.raises(TrainingStopped, match=r"The loss is nan by step \d+: try a lower learning rate") as stopped:
        fit(make_model(), spoilt, 10 * interval, tmp_path, interval, callbacks=[StopOnFailure(), Count()])
    # At once on TensorFlow; on JAX after the few steps that were under way.
    if keras.backend.backend() == "tensorflow":
        assert "by step 14:" in str(stopped.value)
        assert len(seen) == 13
    else:
        assert 13 <= len(seen) < 200
    assert not (tmp_path / "checkpoints").exists()


def test_no_checkpoint_after_a_last_step_that_failed(tmp_path):
    def spoilt(start):
        for step, (x, y) in enumerate(batches(start), start):
            yield x, (y * np.inf if step == 3 else y)

    model = make_model()
    with pytest.raises(TrainingStopped, match=r"(nan|inf) by step 4:"):
        fit(model, spoilt, 8, tmp_path, interval=2, callbacks=[StopOnFailure()])
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]
    # On JAX Keras takes the model's variables away during `fit`; after a failure it has them again.
    assert np.isnan(ops.convert_to_numpy(model(np.ones((1, 4))))).all()
    assert fit(model, batches, 4, tmp_path, interval=2)[-1]["step"] == 4


def test_weights_spoilt_by_the_last_update_are_not_saved(tmp_path):
    # The loss is 49, then a step of 14 * 1e38 leaves the range of float32.
    model = WithCodes()
    model.compile(keras.optimizers.SGD(1e38), "mse")
    with pytest.raises(TrainingStopped, match="is not finite after step 1: try"):
        fit(model, batches_with_codes(lambda step: 7), 2, tmp_path, interval=1, callbacks=[StopOnFailure()])
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    "num_codes, in_use, stops",
    [(512, 10, True), (512, 11, False), (8, 1, True), (8, 2, False), (None, 1, False)],
)
def test_a_collapsed_codebook_stops_after_the_grace(tmp_path, num_codes, in_use, stops):
    stop = StopOnFailure(num_codes, grace_steps=4)
    run = (model_with_codes(), batches_with_codes(lambda step: in_use), 8, tmp_path, 2, [stop])
    if stops:
        sentence = f"collapsed to {in_use} of {num_codes} codes at step 6: try data-dependent initialisation"
        with pytest.raises(TrainingStopped, match=sentence):
            fit(*run)
        assert (tmp_path / "history.csv").read_text().splitlines()[-1].startswith("4,")
    else:
        assert len(fit(*run)) == 4


def test_the_grace_is_counted_in_steps_of_the_whole_run(tmp_path):
    few = batches_with_codes(lambda step: 1)
    fit(model_with_codes(), few, 4, tmp_path, interval=2, callbacks=[StopOnFailure(512, grace_steps=4)])
    with pytest.raises(TrainingStopped, match="at step 6"):
        fit(model_with_codes(), few, 8, tmp_path, interval=2, callbacks=[StopOnFailure(512, grace_steps=4)])


def test_codes_in_use_must_be_plural():
    with pytest.raises(InputError, match="at least 2 codes"):
        StopOnFailure(num_codes=1)


def test_dying_codes_are_told_at_each_further_fifth(tmp_path):
    in_use = [90, 100, 81, 80, 70, 64, 100]

    def each_interval(step):
        return in_use[step // 2]

    with pytest.warns(UserWarning, match="Codes are dying") as told:
        fit(model_with_codes(), batches_with_codes(each_interval), 14, tmp_path, 2, [WarnOfDyingCodes()])
    sentences = [str(warning.message) for warning in told if "dying" in str(warning.message)]
    assert [sentence.split(";")[0] for sentence in sentences] == [
        "Codes are dying: at step 8 80 were in use, 100 before",
        "Codes are dying: at step 12 64 were in use, 100 before",
    ]
