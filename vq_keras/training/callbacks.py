"""What watches a run: a line of progress, TensorBoard, and a stop when going on is pointless.

The values shown are those that the model returns from `compute_metrics`: their means over the interval so far.
"""

import math
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column
from tensorboardX import SummaryWriter

from vq_keras.errors import InputError, TrainingStopped


class StepCallback(keras.callbacks.Callback):
    """A callback that knows at which step of the whole run it stands.

    `fit` sets `step` to where a resumed run goes on; alone, under `keras.Model.fit`, it starts at 0. At the end of a
    Keras epoch, which is an interval of steps here, it is exact.

    On JAX, Keras calls `on_train_batch_end` of these callbacks from several threads, so that reading a loss does not
    hold up the next step; what it changes needs `self.lock`. An exception raised there ends `fit` a few steps later,
    and always before the interval's end is told to any callback.
    """

    async_safe = True

    def __init__(self):
        super().__init__()
        self.step = 0
        self.lock = threading.RLock()
        self._interval_start = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._interval_start = self.step

    def step_of(self, batch: int) -> int:
        """The step of the run, from 1, that the interval's batch number `batch`, from 0, completes."""
        return self._interval_start + batch + 1

    def on_train_batch_end(self, batch, logs=None):
        with self.lock:
            self.step = max(self.step, self.step_of(batch))

    def on_train_end(self, logs=None):
        self.close()

    def close(self) -> None:
        """Gives back what the callback holds. `fit` calls it however training ends; it may be called twice."""


class ConsoleProgress(StepCallback):
    """Step, loss, metrics, speed in the recent past and time left, on standard error.

    A terminal gets one line that is kept up to date; anything else gets a plain line for each interval.

    Args:
        steps: steps in the whole run.
        batch_size: what a step trains on, in units.
        columns: names of the metrics to show after the loss; those that the model does not have are left out.
        name: what is being trained.
        unit: what the speed counts.
    """

    # Steps over which the speed is taken: enough to smooth it, few enough to follow it.
    RECENT = 100

    def __init__(
        self,
        steps: int,
        batch_size: int,
        columns: Sequence[str] = (),
        name: str = "training",
        unit: str = "images",
    ):
        super().__init__()
        self.steps = steps
        self.batch_size = batch_size
        self.columns = ("loss", *columns)
        self.name = name
        self.unit = unit
        self._ticks: deque[tuple[float, int]] = deque(maxlen=self.RECENT + 1)
        self._progress: Progress | None = None

    def on_train_begin(self, logs=None):
        self._ticks.clear()
        if sys.stderr.isatty():
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=10),
                MofNCompleteColumn(),
                # On a narrow terminal this one goes on below, so that nothing is cut off.
                TextColumn("{task.fields[figures]}", table_column=Column(no_wrap=False)),
                console=Console(stderr=True),
            )
            self._task = self._progress.add_task(self.name, total=self.steps, completed=self.step, figures="")
            self._progress.start()

    def on_train_batch_end(self, batch, logs=None):
        # The first tick is the end of the first step, so the time to compile it is not counted.
        with self.lock:
            super().on_train_batch_end(batch, logs)
            self._ticks.append((time.perf_counter(), self.step))
            if self._progress:
                self._progress.update(self._task, completed=self.step, figures=self._figures(logs or {}))

    def on_epoch_end(self, epoch, logs=None):
        if self._progress:
            self._progress.update(self._task, completed=self.step, figures=self._figures(logs or {}))
        else:
            print(f"{self.name}  {self.step}/{self.steps}  {self._figures(logs or {})}", file=sys.stderr, flush=True)

    def close(self) -> None:
        # Steps that were under way when training failed may still report, in other threads.
        with self.lock:
            if self._progress:
                self._progress.stop()
                self._progress = None

    def _figures(self, logs: Mapping[str, float]) -> str:
        figures = [f"{name} {logs[name]:.4g}" for name in self.columns if name in logs]
        rate = self._steps_per_second()
        if rate:
            left = round((self.steps - self.step) / rate)
            figures += [
                f"{rate * self.batch_size:.0f} {self.unit}/s",
                f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left",
            ]
        return "  ".join(figures)

    def _steps_per_second(self) -> float:
        if not self._ticks:
            return 0.0
        (start_time, start_step), (end_time, end_step) = self._ticks[0], self._ticks[-1]
        return (end_step - start_step) / (end_time - start_time) if end_time > start_time else 0.0


class TensorBoardLog(StepCallback):
    """Each interval's metrics and learning rate, and pictures now and then, as TensorBoard event files.

    A resumed run hides what the killed one had written beyond the step from which it goes on, so that TensorBoard
    shows each step once.

    Args:
        directory: where the event files are.
        images: called without arguments at the end of an interval; gives pictures by name, uint8
            `(height, width, channels)`, for example from `vq_keras.plots.reconstruction_grid`.
        image_steps: pictures and texts are written at the end of each interval that reaches a multiple of this many
            steps.
        texts: called as `images`; gives texts in Markdown by name.
    """

    def __init__(
        self,
        directory: str | Path,
        images: Callable[[], Mapping[str, np.ndarray]] | None = None,
        image_steps: int = 1000,
        texts: Callable[[], Mapping[str, str]] | None = None,
    ):
        super().__init__()
        self.directory = Path(directory)
        self.images = images
        self.image_steps = image_steps
        self.texts = texts
        self._writer: SummaryWriter | None = None

    def on_train_begin(self, logs=None):
        # The suffix tells apart the files of two runs that started within one second.
        self._writer = SummaryWriter(
            str(self.directory), purge_step=self.step + 1, filename_suffix=f".from-step-{self.step}"
        )

    def on_epoch_end(self, epoch, logs=None):
        for name, value in (logs or {}).items():
            self._writer.add_scalar(name, value, self.step)
        self._writer.add_scalar("learning_rate", float(self.model.optimizer.learning_rate), self.step)
        if self.step // self.image_steps > self._interval_start // self.image_steps:
            for name, picture in (self.images() if self.images else {}).items():
                self._writer.add_image(name, picture, self.step, dataformats="HWC")
            for name, text in (self.texts() if self.texts else {}).items():
                self._writer.add_text(name, text, self.step)
        self._writer.flush()

    def close(self) -> None:
        if self._writer:
            self._writer.close()
            self._writer = None


class StopOnFailure(StepCallback):
    """Ends training with one sentence when the loss is not finite or the codebook has collapsed.

    The loss is looked at after each step; on JAX the sentence may name one of the next steps, which were under way.

    The codebook is looked at by its "codes_in_use" after each interval: fewer than 2 codes, or than 2 % of them, is a
    collapse. A collapsed codebook keeps one to three codes and does not recover, as all gradients and statistics go
    through those; one that is merely badly used, from a poor initialisation, keeps some 4 % or more. At 2 % of 512
    codes a latent carries at most 3.3 of its 9 bits.

    Args:
        num_codes: codes in all codebooks together, as "codes_in_use" counts them; None when the model has no codebook
            to watch.
        grace_steps: steps of the run for which few codes are no failure. 500 is five times the memory of statistics
            that decay by 0.99 a step, so initialisation and restarts have had their time.

    Raises:
        TrainingStopped: from `fit`, before a checkpoint of the failed interval is written.
    """

    def __init__(self, num_codes: int | None = None, grace_steps: int = 500):
        super().__init__()
        if num_codes is not None and num_codes < 2:
            raise InputError(f"A codebook needs at least 2 codes to be watched for a collapse, not {num_codes}.")
        self.num_codes = num_codes
        self.grace_steps = grace_steps

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        # This is the mean over the interval so far; one value that is not finite makes it so, too.
        loss = logs["loss"]
        if not math.isfinite(loss):
            raise TrainingStopped(
                f"The loss is {loss} by step {self.step_of(batch)}: "
                "try a lower learning rate, a longer warm-up or gradient clipping, or look for damaged data."
            )

    def on_epoch_end(self, epoch, logs=None):
        if self.num_codes is None or self.step <= self.grace_steps:
            return
        in_use = logs["codes_in_use"]
        if in_use < max(2, 0.02 * self.num_codes):
            raise TrainingStopped(
                f"The codebook has collapsed to {in_use:.0f} of {self.num_codes} codes at step {self.step}: "
                "try data-dependent initialisation, restarts of dead codes, soft EM or a lower learning rate."
            )


class WarnOfDyingCodes(StepCallback):
    """Warns in one sentence when an interval used clearly fewer codes than one before it.

    Few codes from the start are a matter of initialisation and may be what the data need; codes that were used and are
    no longer have died, and seldom come back without restarts. It warns at a loss of a fifth of the codes, and again at
    each further fifth. `StopOnFailure` ends runs in which hardly a code is left.
    """

    LOSS = 0.2

    def __init__(self):
        super().__init__()
        self._most = 0.0
        self._warned_at = math.inf

    def on_epoch_end(self, epoch, logs=None):
        in_use = logs["codes_in_use"]
        self._most = max(self._most, in_use)
        if in_use <= min((1 - self.LOSS) * self._most, (1 - self.LOSS) * self._warned_at):
            self._warned_at = in_use
            warnings.warn(
                f"Codes are dying: at step {self.step} {in_use:.0f} were in use, {self._most:.0f} before; "
                "try restarts (restart_threshold), a slower encoder (learning rate) or soft EM.",
                stacklevel=2,
            )
