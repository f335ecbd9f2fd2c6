"""The command line of the recipes that train a latent predictor alone; light to import, so that --help is quick."""

import dataclasses
from typing import ClassVar

from vq_keras.errors import InputError
from vq_keras.training.image_data_config import ImageDataConfig
from vq_keras.training.training_config import TrainingConfig


@dataclasses.dataclass(frozen=True)
class PriorConfig(TrainingConfig, ImageDataConfig):
    """What the recipes of latent predictors ask for in common."""

    CHOICES: ClassVar = TrainingConfig.CHOICES | {"prior": ("image_transformer", "pixel_cnn")}
    COUNTS: ClassVar = (*TrainingConfig.COUNTS, "batch_size")

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
    flip: bool = True
    """Mirror every other training image."""

    def sizes(self) -> dict:
        """Of the latent predictor, as `prior.make` wants them."""
        sizes = {name: getattr(self, name) for name in ("hidden_dim", "num_heads", "block_length", "dropout")}
        return {"num_layers": self.layers, **sizes}

    def check(self) -> None:
        super().check()
        if self.class_conditional and self.prior != "pixel_cnn":
            raise InputError(f"--class-conditional needs --prior pixel_cnn, not {self.prior}.")
