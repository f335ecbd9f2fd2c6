"""Encoders and decoders of images, by name.

All of them turn images (height, width, channels) into a field of (height/4, width/4, latents_per_position) latents and
back: 8x8x10 for CIFAR-10, and with one latent a position 32x32x1 for 128x128 images and 21x21x1 for 84x84 (oord2017
section 4.2).
"""

import dataclasses

import keras
from keras import layers

from vq_keras.errors import InputError

STRIDE = 4


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Sizes of an encoder and a decoder; a subclass says how they are built.

    Args:
        hidden_dim: units of the convolutions.
        latent_dim: dimensions of a latent.
        latents_per_position: latents at each position of the field.
    """

    hidden_dim: int
    latent_dim: int
    latents_per_position: int = 10

    def code_shape(self, image_shape):
        """The field of codes for images (height, width, channels).

        Raises:
            InputError: where height or width is no multiple of 4, or there are no channels.
        """
        height, width, channels = image_shape
        if height % STRIDE or width % STRIDE or min(image_shape) < 1:
            fitting = tuple(max(STRIDE, size // STRIDE * STRIDE) for size in (height, width))
            raise InputError(
                f"images of {height}x{width}x{channels} do not fit: height and width have to be multiples of "
                f"{STRIDE}, such as {fitting[0]}x{fitting[1]}."
            )
        return (height // STRIDE, width // STRIDE, self.latents_per_position)

    def encoder(self, image_shape):
        """A functional model: images, integers 0..255 (batch, *image_shape) -> latents (batch, *code_shape, dim)."""
        rows, columns, depth = self.code_shape(image_shape)
        images = keras.Input(image_shape, dtype="uint8", name="images")
        x = layers.Rescaling(1 / 127.5, offset=-1.0, name="to_unit_range")(images)
        x = self.down(x)
        x = layers.Conv2D(depth * self.latent_dim, 1, name="to_latents")(x)
        x = layers.Reshape((rows, columns, depth, self.latent_dim), name="latents")(x)
        # Neither paper normalises here. It gives distances a unit: without, latents start some hundredths wide, where
        # soft EM at temperature 1 draws nearly at random and no decoder hears them for thousands of steps, and they
        # may grow without end later. float32, as what follows is the codebook's arithmetic.
        latents = layers.LayerNormalization(center=False, scale=False, dtype="float32", name="normalised")(x)
        return keras.Model(images, latents, name="encoder")

    def decoder(self, image_shape, num_parameters):
        """A functional model: quantized (batch, *code_shape, dim) -> parameters (batch, height, width, num_parameters).

        The last layer is float32 under every policy: log-likelihoods are differences of its large outputs.
        """
        rows, columns, depth = self.code_shape(image_shape)
        quantized = keras.Input((rows, columns, depth, self.latent_dim), name="quantized")
        x = layers.Reshape((rows, columns, depth * self.latent_dim), name="from_latents")(quantized)
        x = self.up(x, image_shape[-1])
        parameters = layers.Conv2D(num_parameters, 1, dtype="float32", name="parameters")(x)
        return keras.Model(quantized, parameters, name="decoder")


class Oord2017(Architecture):
    """oord2017 section 4.1: two 4x4 convolutions of stride 2, two residual blocks; the decoder mirrors it.

    A residual block is ReLU, 3x3 convolution, ReLU, 1x1 convolution, added to its input. Two 1x1 convolutions are
    ours: to the latents of a position, of which the paper says the number and not how they are made, and from
    the last transposed convolution to the likelihood's parameters, which for 256 grey levels would otherwise cost
    most of the network.
    """

    def down(self, x):
        for _ in range(2):
            x = layers.Conv2D(self.hidden_dim, 4, strides=2, padding="same", activation="relu")(x)
        return layers.ReLU()(residual_blocks(x, self.hidden_dim))

    def up(self, x, channels):
        x = layers.Conv2D(self.hidden_dim, 3, padding="same")(x)
        x = layers.ReLU()(residual_blocks(x, self.hidden_dim))
        for _ in range(2):
            x = layers.Conv2DTranspose(self.hidden_dim, 4, strides=2, padding="same", activation="relu")(x)
        return x


def residual_blocks(x, hidden_dim):
    """The two residual blocks of oord2017 over a field of `hidden_dim` channels, as layers of a functional model."""
    for _ in range(2):
        y = layers.Conv2D(hidden_dim, 3, padding="same", activation="relu")(layers.ReLU()(x))
        # Without a bias: TensorFlow 2.20 tries to fuse one into the sum and prints an error when it cannot.
        x = layers.Add()([x, layers.Conv2D(hidden_dim, 1, use_bias=False)(y)])
    return x


class Roy2018(Architecture):
    """roy2018 section 5.2: four 5x5 convolutions, two residual layers and a dense layer; the decoder mirrors it.

    Four convolutions of stride 2, as the paper's text has it, would leave a 2x2 field of a 32x32 image. Its released
    code strides twice; here the other two are there without stride. Every unit is layer norm, ReLU, convolution,
    layer norm, as in the released code. There the sub-pixels share the last dense layer; here each has its own
    weights, so that any likelihood fits.
    """

    def down(self, x):
        x = layers.Conv2D(self.hidden_dim, 1, activation="relu")(x)
        for strides in (2, 2, 1, 1):
            x = self._unit(x, layers.Conv2D(self.hidden_dim, 5, strides=strides, padding="same"))
        return self._residual_layers(x)

    def up(self, x, channels):
        x = self._residual_layers(layers.Dense(self.hidden_dim)(x))
        for strides in (1, 1, 2, 2):
            x = self._unit(x, layers.Conv2DTranspose(self.hidden_dim, 5, strides=strides, padding="same"))
        x = layers.Conv2D(channels * self.hidden_dim, 1, activation="relu")(x)
        return layers.LayerNormalization(epsilon=1e-6)(x)

    def _unit(self, x, convolution):
        x = layers.ReLU()(layers.LayerNormalization(epsilon=1e-6)(x))
        return layers.LayerNormalization(epsilon=1e-6)(convolution(x))

    def _residual_layers(self, x):
        for _ in range(2):
            y = self._unit(x, layers.Conv2D(self.hidden_dim, 3, padding="same"))
            y = layers.LayerNormalization(epsilon=1e-6)(layers.Conv2D(self.hidden_dim, 1)(layers.ReLU()(y)))
            x = layers.Add()([x, y])
        return x


# oord2017 gives no size for the latents of CIFAR-10; 64 is that of its authors' published example.
ARCHITECTURES = {
    "oord2017": Oord2017(hidden_dim=256, latent_dim=64),
    "roy2018": Roy2018(hidden_dim=512, latent_dim=512),
    "small": Oord2017(hidden_dim=64, latent_dim=8),
}


def get(name, latents_per_position=10):
    """An architecture by name.

    Args:
        name: "oord2017", "roy2018", or "small" (oord2017 for two CPU cores).
        latents_per_position: latents at each position of the field.

    Returns:
        An `Architecture`.

    Raises:
        InputError: for an unknown name, the message lists the known ones; for less than one latent a position.

    Example:
        >>> get("oord2017").code_shape((32, 32, 3))
        (8, 8, 10)
    """
    if name not in ARCHITECTURES:
        raise InputError(f"there is no architecture {name!r}; the known ones are {', '.join(sorted(ARCHITECTURES))}.")
    if latents_per_position < 1:
        raise InputError(f"latents_per_position is {latents_per_position}; give 1 or more.")
    return dataclasses.replace(ARCHITECTURES[name], latents_per_position=latents_per_position)
