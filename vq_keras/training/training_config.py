"""The options that every recipe has which trains; light to import, so that --help is quick."""

import dataclasses
from typing import ClassVar

from vq_keras.errors import InputError


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How long, how fast and how exactly to train.

    Attributes:
        CHOICES: options by name, and what they may be.
        COUNTS: options that are at least 1.
        PLACES: options that say where things are: these may move before a run is continued.
    """

    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {
        "schedule": ("exponential", "rsqrt"),
        "precision": ("float32", "mixed_bfloat16", "mixed_float16"),
    }
    COUNTS: ClassVar[tuple[str, ...]] = ("steps", "interval")
    PLACES: ClassVar[tuple[str, ...]] = ("run_dir", "data_dir")

    steps: int = 2000
    """Training steps."""
    learning_rate: float = 2e-3
    """Peak of Adam's learning rate."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises to its peak; half of all at most."""
    schedule: str = "exponential"
    """What follows: exponential (to a tenth at the end of the run) or rsqrt (inverse square root of the step)."""
    precision: str = "float32"
    """float32, mixed_bfloat16 or mixed_float16."""
    seed: int = 0
    """Of weights, data order, augmentation and draws."""
    interval: int = 100
    """Steps from one row of history and checkpoint to the next."""

    def check(self) -> None:
        """Raises an `InputError` for what is wrong whatever the data are."""
        for name, known in self.CHOICES.items():
            if getattr(self, name) not in known:
                raise InputError(f"{option(name)} is {getattr(self, name)!r}; give one of {', '.join(known)}.")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"--seed is {self.seed}; give 0 to {2**32 - 1}, as NumPy takes them.")
        for name in self.COUNTS:
            if getattr(self, name) < 1:
                raise InputError(f"{option(name)} is {getattr(self, name)}; give 1 or more.")

    def decisive(self) -> dict:
        """What a run's outcome depends on, the backend among it."""
        import keras

        values = {name: value for name, value in dataclasses.asdict(self).items() if name not in self.PLACES}
        return {**values, "backend": keras.backend.backend()}


def option(name: str) -> str:
    """What a field is called on the command line."""
    return f"--{name.replace('_', '-')}"
