"""The second stage of oord2017: an autoencoder of another model's codes, with a PixelCNN as its decoder."""

import math

import keras
from keras import layers, ops

from vq_keras import bottlenecks, metrics  # noqa: F401  A file names the bottlenecks' classes; see `from_config`.
from vq_keras.bottlenecks import replicas
from vq_keras.errors import InputError
from vq_keras.models.architectures import residual_blocks
from vq_keras.models.autoencoder import Autoencoder
from vq_keras.models.terms import DrawsAsImages, LatentTerm
from vq_keras.priors import PixelCNN

# Convolutions of stride 2 go on until no side of the field is longer than this.
SMALLEST_FIELD = 3
# Of the latents' moving mean and variance: over twenty batches, which an encoder that learns leaves behind quickly.
MOMENTUM = 0.95


@keras.saving.register_keras_serializable(package="vq_keras")
class CodeAutoencoder(Autoencoder):
    """A few latents for a whole image, and a PixelCNN that draws the image's codes given them (oord2017 section 4.2).

        codes -> encoder -> latents -> bottleneck -> decoder -> context -> PixelCNN -> p(codes | latents)

    The codes are those of another autoencoder, one for each position of a field. Its decoder makes an image of what is
    drawn here. A PixelCNN could model the codes without any latents, and the paper says that a variational autoencoder
    then typically leaves them empty (posterior collapse) and a VQ-VAE does not; `vq_keras.latent_use` measures it.

    The loss is, in nats and over the n codes of an image,

        nll_x + num_latents latent_dim / n the bottleneck's losses,    with `Gaussian`: nll_x + num_latents / n kl

    with nll_x the mean over codes, -log p(code | codes before it, latents), the bottleneck's losses means over the
    elements of latents, and kl the mean over latents. So all terms are sums over an image, divided by n, as oord2017
    writes them (equation 3), and for `Gaussian` this is the evidence bound as it stands, its divergence without a
    weight or free bits. A commitment loss that counts as much as a mean over codes does is a multiple of what three
    latents can add to that mean: 27 bits are 0.04 nats for each of 441 codes.

    The PixelCNN reads the latents as a field of vectors, one for each position: the sum of one for all of them and of
    what transposed convolutions make of the latents. The first alone leaves it to the PixelCNN to find out where it
    stands, of which it sees the borders alone; the second alone learns for each place anew what is true everywhere.
    After 600 steps on 15x15 codes of video frames the codes of an image took 1,126.2 bits with the first, 1,125.1 with
    the second and 1,124.0 with both, and 38, 20 and 44 more with the latents of another image.

    A functional model: the input is `{"codes": int32 (batch, rows, columns)}`; the outputs are for each image `"nll_x"`
    in nats a code, `"nll_z"` in nats a latent, where the bottleneck has codes `"latent_codes"`, and `"distances"` where
    it passes gradients straight through. Codes of latents have a uniform prior, nll_z = ln K; that of `Gaussian` is the
    divergence, and nll_x that of a draw. Metrics: `nll_x`, `nll_z`, `bits_per_image` (both together), and of codes
    `perplexity`, `codes_in_use` and `codebook_distance`, as those of `ImageAutoencoder`.

    Args:
        bottleneck: a `Bottleneck`, with `num_codebooks` of `num_latents` where each latent is to have its own, or
            `Gaussian`.
        code_shape: (rows, columns) of the field of codes.
        num_codes: of the other model's codebook.
        num_latents: latents of an image.
        latent_dim: dimensions of a latent.
        hidden_dim: units of encoder and decoder, and of the context.
        pixel_cnn_layers, pixel_cnn_dim, kernel_size, dropout: of the `PixelCNN`.

    Raises:
        InputError: for a size out of range, or a bottleneck whose bound needs several draws.

    Example:
        >>> bottleneck = bottlenecks.VectorQuantizer(num_codes=512, num_codebooks=3)
        >>> model = CodeAutoencoder(bottleneck, code_shape=(21, 21), num_codes=512)
        >>> model.compile("adam")
        >>> codes = keras.random.randint((8, 21, 21), 0, 512)
        >>> history = model.fit({"codes": codes}, verbose=0)
        >>> latent_codes = model.encode(codes)  # (8, 3)
        >>> model.generate(latent_codes, keras.random.uniform((8, 441))).shape
        (8, 21, 21)
    """

    def __init__(
        self,
        bottleneck,
        code_shape=(21, 21),
        num_codes=512,
        num_latents=3,
        latent_dim=16,
        hidden_dim=64,
        pixel_cnn_layers=3,
        pixel_cnn_dim=48,
        kernel_size=3,
        dropout=0.0,
        **kwargs,
    ):
        code_shape = tuple(code_shape)
        sizes = {"num_latents": num_latents, "latent_dim": latent_dim, "hidden_dim": hidden_dim}
        for name, size in sizes.items():
            if size < 1:
                raise InputError(f"{name} is {size}; give at least 1.")
        if bottleneck.gives_bound and "kl" not in bottleneck.outputs_of_call:
            raise InputError(
                f"the bound of a {type(bottleneck).__name__} needs several draws for each image, which this model does "
                "not decode; give a Gaussian, or a bottleneck without a bound."
            )
        pixel_cnn = PixelCNN(
            code_shape,
            num_codes,
            num_layers=pixel_cnn_layers,
            hidden_dim=pixel_cnn_dim,
            kernel_size=kernel_size,
            dropout=dropout,
            context_shape=(*code_shape, hidden_dim),
            name="pixel_cnn",
        )
        encoder = _encoder(code_shape, num_codes, num_latents, latent_dim, hidden_dim)
        decoder = _decoder(code_shape, num_latents, latent_dim, hidden_dim)

        # 1. Codes to latents and back to what the PixelCNN is conditioned on.
        codes = keras.Input(code_shape, dtype="int32", name="codes")
        latents = encoder(codes)
        encoded = bottleneck(latents)
        context = decoder(DrawsAsImages()(encoded["vectors"]) if bottleneck.gives_bound else encoded["quantized"])
        # 2. The two terms of the likelihood, for each image.
        outputs = {"nll_x": LatentTerm(pixel_cnn, name="code_term")(codes[..., None], context=context)}
        if bottleneck.gives_bound:
            outputs["nll_z"] = ops.mean(encoded["kl"], axis=-1)
        else:
            outputs["latent_codes"] = encoded["codes"]
            outputs["nll_z"] = ops.full_like(outputs["nll_x"], math.log(bottleneck.num_codes))
        if bottleneck.passes_straight_through:
            outputs["distances"] = metrics.squared_distances(latents, encoded["quantized"])
        super().__init__(inputs={"codes": codes}, outputs=outputs, **kwargs)

        self.bottleneck = bottleneck
        self.code_shape = code_shape
        self.num_codes = num_codes
        self.num_latents = num_latents
        self.latent_shape = bottleneck.code_shape((num_latents,))
        self.latent_dim = latent_dim
        self.hidden_dim = hidden_dim
        self.pixel_cnn_layers = pixel_cnn_layers
        self.pixel_cnn_dim = pixel_cnn_dim
        self.kernel_size = kernel_size
        self.dropout = dropout
        self.encoder = encoder
        self.decoder = decoder
        self.pixel_cnn = pixel_cnn
        self._measure(bottleneck, "nll_x", "nll_z", "bits_per_image")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        of_latents = self.latent_dim * sum(self.losses)
        if self.bottleneck.gives_bound:
            of_latents = ops.mean(y_pred["nll_z"])
        loss = ops.mean(y_pred["nll_x"]) + self.num_latents / math.prod(self.code_shape) * of_latents
        return replicas.share_of_loss(loss)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        nll_x, nll_z = y_pred["nll_x"], y_pred["nll_z"]
        bits = (nll_x * math.prod(self.code_shape) + nll_z * math.prod(self.latent_shape)) / math.log(2)
        return self._update((nll_x, nll_z, bits), y_pred.get("latent_codes"), y_pred.get("distances"))

    def encode(self, codes):
        """The codes of the latents: int32 (batch, rows, columns) -> int32 (batch, *latent_shape).

        Without codes the means of the latents: float32 (batch, num_latents, latent_dim).
        """
        return self.bottleneck.encode(self.encoder(codes, training=False))

    def nats(self, codes, latents):
        """-log p(codes | latents) of each image.

        Args:
            codes: int32 (batch, rows, columns).
            latents: what `encode` gives, or without codes any vectors like them.

        Returns:
            float32 (batch,).
        """
        samples = ops.reshape(codes, (-1, math.prod(self.code_shape), 1))
        return self.pixel_cnn.nats(samples, context=self._context(latents))

    def generate(self, latents, uniforms, temperature=1.0, top_k=None):
        """Draws codes given latents.

        Args:
            latents: what `encode` gives, or without codes any vectors like them.
            uniforms, temperature, top_k: as for `LatentPredictor.generate`.

        Returns:
            int32 (batch, rows, columns).
        """
        return self.pixel_cnn.generate(uniforms, temperature, top_k, context=self._context(latents))

    def _context(self, latents):
        return self.decoder(self.bottleneck.decode(latents), training=False)

    def get_config(self):
        names = ("code_shape", "num_codes", "num_latents", "latent_dim", "hidden_dim")
        names += ("pixel_cnn_layers", "pixel_cnn_dim", "kernel_size", "dropout", "name")
        bottleneck = keras.saving.serialize_keras_object(self.bottleneck)
        return {"bottleneck": bottleneck, **{name: getattr(self, name) for name in names}}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        # Keras finds a bottleneck's class only where it was imported: this module imports all that a file can name.
        bottleneck = keras.saving.deserialize_keras_object(config["bottleneck"], custom_objects)
        return cls(**{**config, "bottleneck": bottleneck})


def _num_halvings(code_shape):
    """Convolutions of stride 2 from the field of codes to the smallest one."""
    return max(0, math.ceil(math.log2(max(code_shape) / SMALLEST_FIELD)))


def _encoder(code_shape, num_codes, num_latents, latent_dim, hidden_dim):
    """A functional model: codes int32 (batch, rows, columns) -> latents (batch, num_latents, latent_dim)."""
    codes = keras.Input(code_shape, dtype="int32", name="codes")
    x = layers.Embedding(num_codes, hidden_dim, keras.initializers.RandomNormal(stddev=1.0), name="embedding")(codes)
    for _ in range(_num_halvings(code_shape)):
        x = layers.Conv2D(hidden_dim, 4, strides=2, padding="same", activation="relu")(x)
    x = layers.Flatten()(layers.ReLU()(residual_blocks(x, hidden_dim)))
    x = layers.Dense(num_latents * latent_dim, name="to_all_latents")(x)
    # Over the batch and not, as in an encoder of images, over the dimensions of a latent. Those could become the same
    # for all images, which the commitment loss likes best as long as the decoder has not learnt to listen, and would
    # stay so. Here each dimension tells images apart from the first step on.
    x = layers.BatchNormalization(center=False, scale=False, momentum=MOMENTUM, dtype="float32", name="normalised")(x)
    latents = layers.Reshape((num_latents, latent_dim), dtype="float32", name="latents")(x)
    return keras.Model(codes, latents, name="encoder")


def _decoder(code_shape, num_latents, latent_dim, hidden_dim):
    """A functional model: vectors (batch, num_latents, latent_dim) -> context (batch, rows, columns, hidden_dim)."""
    num_doublings = _num_halvings(code_shape)
    smallest = [-(-size // 2**num_doublings) for size in code_shape]
    surplus = [size * 2**num_doublings - wanted for size, wanted in zip(smallest, code_shape, strict=True)]
    # With stride 2 a fourth of a kernel's weights reaches any one position, and half of the units before are 0. With
    # Keras's own scale the latents would be as good as inaudible behind three such layers.
    initializer = keras.initializers.VarianceScaling(8.0, "fan_in")

    vectors = keras.Input((num_latents, latent_dim), name="vectors")
    x = layers.Dense(4 * hidden_dim, "relu", kernel_initializer="he_normal", name="hidden")(layers.Flatten()(vectors))
    everywhere = layers.Reshape((1, 1, hidden_dim))(layers.Dense(hidden_dim, name="everywhere")(x))
    x = layers.Dense(math.prod(smallest) * hidden_dim, name="smallest_field")(x)
    x = layers.Reshape((*smallest, hidden_dim))(x)
    for _ in range(num_doublings):
        x = layers.ReLU()(x)
        x = layers.Conv2DTranspose(hidden_dim, 4, strides=2, padding="same", kernel_initializer=initializer)(x)
    context = layers.Add(name="context")([layers.Cropping2D([(0, rest) for rest in surplus])(x), everywhere])
    return keras.Model(vectors, context, name="decoder")
