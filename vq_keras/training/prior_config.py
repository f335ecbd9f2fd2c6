"""The command line of the recipes that train a latent predictor alone; light to import, so that --help is quick."""

import dataclasses
from pathlib import Path

from vq_keras.errors import InputError

CHOICES = {
    "prior": ("image_transformer", "pixel_cnn"),
    "schedule": ("exponential", "rsqrt"),
    "precision": ("float32", "mixed_bfloat16", "mixed_float16"),
}


@dataclasses.dataclass(frozen=True)
class PriorConfig:
    """What the recipes of latent predictors ask for in common."""

    dataset: str | None = None
    """Images, as for recipes/train_cifar.py."""
    data_dir: Path | None = None
    """Where they are."""
    image_size: int | None = None
    """Height and width that they are brought to, in pixels."""
    run_dir: Path | None = None
    """The run's folder."""

    prior: str = "pixel_cnn"
    """pixel_cnn (gated PixelCNN) or image_transformer."""
    class_conditional: bool = False
    """Learn p(codes | class); of a data set with classes, by a pixel_cnn."""
    layers: int = 6
    """Its layers."""
    hidden_dim: int = 64
    """Its width; 512 in both papers."""
    num_heads: int = 2
    """Attention heads of an image_transformer."""
    block_length: int = 256
    """Codes in a block of an image_transformer's local attention, which sees its own and the one before."""
    dropout: float = 0.0
    """Of embeddings and residual branches."""

    steps: int = 2000
    """Training steps."""
    batch_size: int = 32
    """Images in a step."""
    learning_rate: float = 2e-3
    """Peak of Adam's learning rate."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises to its peak."""
    schedule: str = "exponential"
    """What follows: exponential (to a tenth at the end of the run) or rsqrt (inverse square root of the step)."""
    precision: str = "float32"
    """float32, mixed_bfloat16 or mixed_float16."""
    flip: bool = True
    """Mirror every other training image."""
    seed: int = 0
    """Of weights, data order, augmentation and draws."""
    interval: int = 100
    """Steps from one row of history and checkpoint to the next."""

    def sizes(self) -> dict:
        """Of the latent predictor, as `prior.make` wants them."""
        sizes = {name: getattr(self, name) for name in ("hidden_dim", "num_heads", "block_length", "dropout")}
        return {"num_layers": self.layers, **sizes}

    def decisive(self) -> dict:
        """What a run's outcome depends on, the backend among it."""
        import keras

        where = ("run", "run_dir", "data_dir")
        values = {name: value for name, value in dataclasses.asdict(self).items() if name not in where}
        return {**values, "backend": keras.backend.backend()}

    def check(self):
        """Raises an `InputError` for what is wrong whatever the data are."""
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise InputError(f"--{name} is {getattr(self, name)!r}; give one of {', '.join(known)}.")
        for name in ("steps", "batch_size", "interval"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}; give 1 or more.")
        if self.class_conditional and self.prior != "pixel_cnn":
            raise InputError(f"--class-conditional needs --prior pixel_cnn, not {self.prior}.")
