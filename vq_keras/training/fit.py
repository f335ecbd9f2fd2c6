"""One way to train every model: `keras.Model.fit` in intervals, each with a row of history and a checkpoint."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import keras

from vq_keras.errors import InputError
from vq_keras.training.callbacks import StepCallback
from vq_keras.training.checkpoints import Checkpoints
from vq_keras.training.files import replace_file
from vq_keras.training.runs import HISTORY


def make_deterministic(seed: int) -> None:
    """Makes this process give the same numbers each time; call it before the model is built.

    Seeds Python, NumPy and Keras, and on TensorFlow has every operation summed in a fixed order, which costs nothing
    measurable on a CPU. JAX does so on a CPU of itself; on a GPU it needs `--xla_gpu_deterministic_ops=true` in the
    environment variable `XLA_FLAGS` before the process starts.

    Args:
        seed: any integer from 0 to 2**32 - 1.
    """
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def fit(
    model: keras.Model,
    batches: Callable[[int], Iterable],
    steps: int,
    run_dir: str | Path,
    interval: int = 100,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    keep: int = 2,
    validation: Iterable | None = None,
) -> list[dict[str, float]]:
    """Trains a model for `steps` steps, or for those of them that an earlier call has not made.

    To Keras an interval is an epoch: metrics are means over it. At its end a row goes to the history and a checkpoint
    to `run_dir/checkpoints`, and `run_dir/history.csv` is written anew. A run that was killed, at any moment, and
    called again ends with the same weights and history as one that was not, bit for bit, if
    - the seed, the machine and the interval are the same (see `make_deterministic`),
    - `batches(n)` begins with the batch that is number n, from 0, of `batches(0)`,
    - the model's random layers draw from seed generators of their own, as those of Keras do, and
    - callbacks keep nothing in mind that changes training (Keras's EarlyStopping does).

    Callbacks come before the checkpoint of their interval: what they change is in it, and one that raises prevents it.

    Args:
        model: built and compiled. With `steps_per_execution` above 1, `interval` and `steps` are multiples of it.
        batches: given the number of steps made so far, gives endless batches: a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, or a generator of tuples `(inputs,)` or `(inputs, targets)`.
        steps: steps in the whole run.
        run_dir: the run's folder, for this one model.
        interval: steps from one checkpoint to the next; the last interval is shorter if it has to be.
        callbacks: those of `vq_keras.training.callbacks`, or others of Keras.
        keep: how many of the latest checkpoints stay; the second is for the case that the last is damaged, more are
            for `Checkpoints.restore_mean`. Each is as large as weights and optimizer together.
        validation: finite batches; the metrics over all of them at the end of each interval are "val_..." in the
            history.

    Returns:
        The history since step 0: a dictionary for each interval with "step", its last, and the metrics.

    Raises:
        InputError: an argument is wrong, the batches ran out, or there is no usable checkpoint among those in
            `run_dir`, or one of another architecture.
        TrainingStopped: as the callbacks say; or a variable is not finite at the end of an interval.

    Example:
        >>> import numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("adam", "mse")
        >>> def batches(start):
        ...     while True:
        ...         rng = np.random.default_rng(start)
        ...         yield rng.normal(size=(8, 2)), np.ones((8, 1))
        ...         start += 1
        >>> history = fit(model, batches, steps=25, run_dir="/tmp/vq_keras_example/run", interval=10)
        >>> [row["step"] for row in history]
        [10, 20, 25]
    """
    if steps < 1 or interval < 1:
        raise InputError(f"Steps and interval must be at least 1, not {steps} and {interval}.")
    run_dir = Path(run_dir)
    checkpoints = Checkpoints(run_dir / "checkpoints", keep)
    step, extra = checkpoints.restore(model) or (0, {"history": []})
    history = extra["history"]
    if step >= steps:
        # Keras does this at the end of `fit`, after the last checkpoint: an optimizer with `use_ema` then puts the
        # averages of the weights in their place.
        model.optimizer.finalize_variable_values(model.trainable_variables)
        _write_history(run_dir, history)
        return history
    if any(count % model.steps_per_execution for count in (interval, steps, step)):
        raise InputError(
            f"{steps} steps in intervals of {interval} cannot be run {model.steps_per_execution} at a time; "
            "let both be multiples of steps_per_execution."
        )

    recorder = _Recorder(checkpoints, run_dir, history, steps)
    callbacks = [*callbacks, recorder]
    own = [callback for callback in callbacks if isinstance(callback, StepCallback)]
    for callback in own:
        callback.step = step
    try:
        model.fit(
            batches(step),
            steps_per_epoch=interval,
            epochs=math.ceil((steps - step) / interval),
            callbacks=callbacks,
            validation_data=validation,
            shuffle=False,
            verbose=0,
        )
    finally:
        for callback in own:
            callback.close()
    return history


class _Recorder(StepCallback):
    """Ends the last interval where the run ends; keeps history and checkpoints."""

    def __init__(self, checkpoints: Checkpoints, run_dir: Path, history: list[dict[str, float]], steps: int):
        super().__init__()
        self.checkpoints = checkpoints
        self.run_dir = run_dir
        self.history = history
        self.steps = steps
        self._ending = False

    def on_train_batch_begin(self, batch, logs=None):
        # Keras always calls this one from its main thread, and looks at the flag after the step.
        if self.step_of(batch) + self.model.steps_per_execution > self.steps:
            self._ending = self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        expected = min(self._interval_start + self.params["steps"], self.steps)
        stopped_by_another = self.model.stop_training and not self._ending
        if self.step < expected and not stopped_by_another:
            raise InputError(f"The batches ran out after {self.step} of {self.steps} steps: let them repeat endlessly.")
        self.history.append({"step": self.step, **{name: float(value) for name, value in logs.items()}})
        self.checkpoints.save(self.model, self.step, {"history": self.history})
        _write_history(self.run_dir, self.history)


def _write_history(run_dir: Path, history: list[dict[str, float]]) -> None:
    names = list(dict.fromkeys(name for row in history for name in row))
    table = io.StringIO()
    writer = csv.DictWriter(table, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    replace_file(run_dir / HISTORY, table.getvalue().encode())
