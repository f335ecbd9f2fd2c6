"""The autoencoder of images."""

import math

import keras
from keras import ops

from vq_keras import bottlenecks, likelihoods, metrics, priors  # noqa: F401  A file names their classes; see below.
from vq_keras.bottlenecks import replicas
from vq_keras.errors import InputError
from vq_keras.models import architectures
from vq_keras.models.autoencoder import Autoencoder
from vq_keras.models.terms import BoundTerms, DrawsAsImages, LatentTerm, ReconstructionTerm


@keras.saving.register_keras_serializable(package="vq_keras")
class ImageAutoencoder(Autoencoder):
    """Encoder, bottleneck, decoder with a likelihood and, where given, a latent predictor trained jointly.

        images -> latents -> quantized, codes -> parameters of p(images | codes)

    The loss of a training step is, in nats,

        nll_x + predictor_weight nll_z + the bottleneck's losses

    with nll_x the mean over dimensions and nll_z the mean over codes (roy2018 section 5.2, and section 1.6 of its
    released code's behaviour: both are means and have weight 1).

    A bottleneck that gives a bound (`LatentLayer.gives_bound`) draws latents from a distribution instead, and all m
    draws are decoded. There nll_x and nll_z are the terms of a lower bound on log p(x) (`BoundTerms`), with the prior
    that the bottleneck has, and the loss is that bound as it stands, in nats per dimension,

        nll_x + n_z / n_x nll_z + predictor_weight nll_codes

    for n_x dimensions and n_z latents of an image: another weight would make it another bound, or none. A latent
    predictor, where there are codes, is one of the most likely codes, and has the term nll_codes to itself.

    A functional model: the input is `{"images": integers 0..255 (batch, height, width, channels)}`; the outputs are
    `"codes"`, where the bottleneck has them, and, for each image, `"nll_x"` in nats per dimension and `"nll_z"` in
    nats per code (without a latent predictor ln K, the uniform prior) or latent. Where the bottleneck passes gradients
    straight through, `"distances"` are those of `metrics.squared_distances` of each latent. Metrics: `nll_x`, `nll_z`,
    `bits_per_dim`, of codes `perplexity` and `codes_in_use`, and of those distances `codebook_distance`.

    With a latent predictor of p(codes | class) the input has "classes", too: int32 (batch,).

    Args:
        bottleneck: a `Bottleneck`, or another `LatentLayer` that gives a bound.
        image_shape: (height, width, channels); height and width multiples of 4.
        architecture: a name of `vq_keras.models.architectures`.
        likelihood: a name of `vq_keras.likelihoods`, or a `Likelihood`.
        latent_predictor: None, or a `LatentPredictor` for this field of codes, maybe with classes.
        predictor_weight: weight of nll_z in the loss.
        latents_per_position: latents at each position of the field of codes.

    Raises:
        InputError: for an unknown name, an image size that does not fit, a latent predictor without codes, or one that
            wants a context.

    Example:
        >>> model = ImageAutoencoder(VectorQuantizer(num_codes=64), image_shape=(32, 32, 3))
        >>> model.compile("adam")
        >>> history = model.fit({"images": numpy.zeros((8, 32, 32, 3), "uint8")}, verbose=0)
    """

    def __init__(
        self,
        bottleneck,
        image_shape=(32, 32, 3),
        architecture="small",
        likelihood="categorical",
        latent_predictor=None,
        predictor_weight=1.0,
        latents_per_position=10,
        **kwargs,
    ):
        likelihood = likelihoods.get(likelihood)
        image_shape = tuple(image_shape)
        if latent_predictor is not None and not bottleneck.has_codes:
            raise InputError(f"a {type(bottleneck).__name__} has no codes for a latent predictor; leave that out.")
        if isinstance(getattr(latent_predictor, "input", None), dict) and "context" in latent_predictor.input:
            raise InputError("the latent predictor wants a context, which images do not have; make it without.")
        parts = architectures.get(architecture, latents_per_position)
        encoder = parts.encoder(image_shape)
        decoder = parts.decoder(image_shape, likelihood.num_parameters(image_shape[-1]))

        # 1. Images to codes and back to the parameters of a distribution over images.
        images = keras.Input(image_shape, dtype="uint8", name="images")
        latents = encoder(images)
        encoded = bottleneck(latents)
        parameters = decoder(DrawsAsImages()(encoded["vectors"]) if bottleneck.gives_bound else encoded["quantized"])
        # 2. The two terms of the likelihood, for each image.
        outputs = {"codes": encoded["codes"]} if bottleneck.has_codes else {}
        if bottleneck.gives_bound:
            scores = {name: encoded[name] for name in ("kl", "log_probs", "log_priors") if name in encoded}
            outputs |= BoundTerms(likelihood, name="bound_terms")(images, parameters, scores)
        else:
            outputs["nll_x"] = ReconstructionTerm(likelihood, name="reconstruction_term")(images, parameters)
        inputs = {"images": images}
        if latent_predictor is not None:
            term, classes = LatentTerm(latent_predictor, name="latent_term"), None
            if latent_predictor.num_classes:
                classes = inputs["classes"] = keras.Input((), dtype="int32", name="classes")
            if bottleneck.gives_bound:
                outputs["nll_codes"] = term(ops.expand_dims(encoded["codes"], -1), classes)
            else:
                outputs["nll_z"] = term(encoded["samples"], classes)
        if bottleneck.passes_straight_through:
            outputs["distances"] = metrics.squared_distances(latents, encoded["quantized"])
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)

        self.image_shape = image_shape
        self.code_shape = bottleneck.code_shape(parts.code_shape(image_shape))
        self.architecture = architecture
        self.encoder = encoder
        self.bottleneck = bottleneck
        self.decoder = decoder
        self.likelihood = likelihood
        self.latent_predictor = latent_predictor
        self.predictor_weight = predictor_weight
        self.latents_per_position = latents_per_position
        self._measure(bottleneck, "nll_x", "nll_z", "bits_per_dim")

    @property
    def num_classes(self):
        """Of the latent predictor; None where there are none."""
        return None if self.latent_predictor is None else self.latent_predictor.num_classes

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = ops.mean(y_pred["nll_x"])
        of_predictor = "nll_z"
        if self.bottleneck.gives_bound:
            loss = loss + math.prod(self.code_shape) / math.prod(self.image_shape) * ops.mean(y_pred["nll_z"])
            of_predictor = "nll_codes"
        if self.latent_predictor is not None:
            loss = loss + self.predictor_weight * ops.mean(y_pred[of_predictor])
        return replicas.share_of_loss(loss + sum(self.losses))

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        nll_x = y_pred["nll_x"]
        nll_z = y_pred["nll_z"] if "nll_z" in y_pred else ops.full_like(nll_x, math.log(self.bottleneck.num_codes))
        bits = metrics.bits_per_dim(nll_x, nll_z, math.prod(self.image_shape), math.prod(self.code_shape))
        return self._update((nll_x, nll_z, bits), y_pred.get("codes"), y_pred.get("distances"))

    def encode(self, images):
        """The codes of images: integers 0..255 (batch, *image_shape) -> int32 (batch, *code_shape).

        Without codes the means of the latents: float32 (batch, *code_shape, dim).
        """
        return self.bottleneck.encode(self.encoder(images, training=False))

    def decode(self, codes):
        """The likelihood's mode for what `encode` gives: (batch, *code_shape[, dim]) -> uint8 (batch, *image_shape)."""
        return self.likelihood.mode(self.decoder(self.bottleneck.decode(codes), training=False))

    def reconstruct(self, images):
        """decode(encode(images))."""
        return self.decode(self.encode(images))

    def with_latent_predictor(self, latent_predictor):
        """This model, its weights included, with a latent predictor that was trained afterwards on its codes.

        Args:
            latent_predictor: a `LatentPredictor` for this field of codes.

        Returns:
            A new `ImageAutoencoder`.
        """
        config = {**self.get_config(), "latent_predictor": keras.saving.serialize_keras_object(latent_predictor)}
        model = type(self).from_config(config)
        for name in ("encoder", "bottleneck", "decoder"):
            getattr(model, name).set_weights(getattr(self, name).get_weights())
        model.latent_predictor.set_weights(latent_predictor.get_weights())
        return model

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        latent_predictor = None
        if self.latent_predictor is not None:
            latent_predictor = serialize(self.latent_predictor)
            latent_predictor.pop("compile_config", None)  # How it was trained alone is no part of this model.
        return {
            "bottleneck": serialize(self.bottleneck),
            "image_shape": self.image_shape,
            "architecture": self.architecture,
            "likelihood": serialize(self.likelihood),
            "latent_predictor": latent_predictor,
            "predictor_weight": self.predictor_weight,
            "latents_per_position": self.latents_per_position,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        # Keras finds the parts' classes only where they were imported: this module imports all that a file can name.
        config = dict(config)
        for part in ("bottleneck", "likelihood", "latent_predictor"):
            if config[part] is not None:
                config[part] = keras.saving.deserialize_keras_object(config[part], custom_objects)
        return cls(**config)
