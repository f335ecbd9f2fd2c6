"""Learning rates over a run: a linear rise, then a decay."""

import keras
from keras import ops

from vq_keras.errors import InputError

DECAYS = ("exponential", "rsqrt")


@keras.saving.register_keras_serializable(package="vq_keras")
class WarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up to `peak`, then an exponential or an inverse square root decay.

    With s the number of updates made so far, w = `warmup_steps` and t = `total_steps`:

        s <= w                    peak * s / w
        s >= w, "exponential"     peak * final_ratio ** ((s - w) / (t - w)), constant from t on
        s >= w, "rsqrt"           peak * sqrt(w / s)

    Roy et al. 2018, section 5, says that the rate decays exponentially after the warm-up. The code released with that
    paper decays it with the inverse square root of the step instead (Vaswani et al. 2017, equation 3), with w = 4000
    and a peak of 2 / sqrt(512 * 4000) = 1.3975e-3. "exponential" is the default, because it ends near zero whatever
    the length of the run; "rsqrt" does not depend on the length, so a run can be prolonged.

    Args:
        peak: the highest rate, above zero.
        warmup_steps: updates until the peak, at least 1. The very first update is made with a rate of zero.
        total_steps: updates in the whole run, more than `warmup_steps`.
        decay: "exponential" or "rsqrt".
        final_ratio: the last rate of the exponential decay over `peak`, in (0, 1]; "rsqrt" has no use for it.

    Raises:
        InputError: an argument is outside of what is stated above.

    Example:
        >>> schedule = WarmupDecay(peak=1e-3, warmup_steps=100, total_steps=1000)
        >>> optimizer = keras.optimizers.Adam(schedule)
        >>> [round(float(schedule(step)), 6) for step in (50, 100, 550, 1000)]
        [0.0005, 0.001, 0.000316, 0.0001]
    """

    def __init__(
        self,
        peak: float,
        warmup_steps: int,
        total_steps: int,
        decay: str = "exponential",
        final_ratio: float = 0.1,
    ):
        if decay not in DECAYS:
            raise InputError(f"There is no learning rate decay {decay!r}; choose one of {', '.join(DECAYS)}.")
        if not peak > 0:
            raise InputError(f"The peak of the learning rate must be above 0, not {peak}.")
        if not 1 <= warmup_steps < total_steps:
            raise InputError(
                f"The learning rate's warm-up must take at least 1 step and end before the run does, "
                f"not {warmup_steps} of {total_steps} steps."
            )
        if not 0 < final_ratio <= 1:
            raise InputError(f"The last learning rate must be in (0, 1] times the peak, not {final_ratio} times.")
        super().__init__()
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps
        self.decay = decay
        self.final_ratio = final_ratio

    def __call__(self, step):
        step = ops.cast(step, "float32")
        rise = step / self.warmup_steps
        if self.decay == "exponential":
            progress = ops.clip((step - self.warmup_steps) / (self.total_steps - self.warmup_steps), 0.0, 1.0)
            fall = self.final_ratio**progress
        else:
            fall = ops.sqrt(self.warmup_steps / ops.maximum(step, self.warmup_steps))
        return self.peak * ops.minimum(rise, 1.0) * fall

    def get_config(self) -> dict:
        return {
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
            "decay": self.decay,
            "final_ratio": self.final_ratio,
        }
