"""The optimizer of images and codes."""

import keras

from vq_keras.training.schedules import WarmupDecay


def adam(learning_rate: float, steps: int, warmup_steps: int = 100, schedule: str = "exponential"):
    """Adam with the gradient's norm clipped at 1: one step with an outlying gradient can throw an autoencoder into a
    state that it does not leave.

    Args:
        learning_rate: its peak.
        steps: steps of the whole run.
        warmup_steps: steps of the rise to the peak; at most half of all, so that a short run still sees it.
        schedule: what follows, as `WarmupDecay` has it.

    Example:
        >>> model.compile(optimizer=adam(2e-3, steps=1000))
    """
    decay = WarmupDecay(learning_rate, min(warmup_steps, steps // 2), steps, schedule)
    return keras.optimizers.Adam(decay, clipnorm=1.0)
