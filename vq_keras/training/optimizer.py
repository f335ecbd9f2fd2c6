"""The optimizers of a training configuration."""

import keras

from vq_keras.training.schedules import WarmupDecay
from vq_keras.training.training_config import TrainingConfig


def learning_rate(config: TrainingConfig) -> WarmupDecay:
    """The learning rate over a run; of one of very few steps, too, where half of them are warm-up.

    Args:
        config: has learning_rate, steps, warmup_steps and schedule.

    Example:
        >>> float(learning_rate(TrainingConfig(steps=10, learning_rate=1.0))(5))
        1.0
    """
    warmup_steps = max(1, min(config.warmup_steps, config.steps // 2))
    return WarmupDecay(config.learning_rate, warmup_steps, max(2, config.steps), config.schedule)


def adam(config: TrainingConfig) -> keras.optimizers.Adam:
    """Adam with the gradient's norm clipped at 1: one step with an outlying gradient can throw an autoencoder into a
    state that it does not leave.

    Args:
        config: as for `learning_rate`.

    Example:
        >>> model.compile(optimizer=adam(TrainingConfig(steps=1000)))
    """
    return keras.optimizers.Adam(learning_rate(config), clipnorm=1.0)
