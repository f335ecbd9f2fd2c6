"""Writes a trained image autoencoder as a SavedModel for TF Serving."""

import dataclasses
import math
import os
import sys
from pathlib import Path
from typing import Annotated

import tyro

from vq_keras.errors import run_command

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@dataclasses.dataclass(frozen=True)
class Config:
    """Write the model of a run directory as the next version of a SavedModel directory.

    Signatures: reconstruct (the default), encode, decode, score, and, where the run has a latent predictor,
    predict_latents. A model without codes encodes to means, decodes vectors, and has no score.
    """

    run_dir: Annotated[Path, tyro.conf.Positional]
    """The folder of a finished run of recipes/train_cifar.py or train_prior.py."""
    out_dir: Annotated[Path, tyro.conf.Positional]
    """The model's folder; the version becomes a folder in it."""


WORDS = {
    "images": "images, 0 to 255",
    "codes": "the discrete latents of images",
    "means": "the most likely latents of images",
    "vectors": "latents, such as `encode` gives, or draws from N(0, I)",
    "classes": "the class of each image, from 0",
    "seed": "of each sample, which it decides alone, whatever it is batched with",
    "temperature": "of each sample: 1 draws from the model, 0 takes the likeliest code at each step",
    "bits_per_dim": "bits for each sub-pixel, those of the codes among them",
    "bits_per_dim_reconstruction": "what the images take when the codes are known",
    "bits_per_dim_codes": "what the codes take",
}
# At a time, 64 images of 32x32: the parameters of a pixel are up to 768 numbers, and a batch may be of any size.
PIXELS = 64 * 32 * 32
RECONSTRUCT = "Encodes images and decodes them again."


def signatures(model):
    """The signatures of an image autoencoder, for `vq_keras.saved_model.write`.

    - `reconstruct`: images (batch, height, width, channels) uint8 -> images.
    - `encode`: images -> codes (batch, *code_shape) int32.
    - `decode`: codes -> images, the likelihood's mode.
    - `score`: images -> bits_per_dim (batch,) and its two terms, for the most likely codes.
    - `predict_latents`: seed (batch,) int32 and temperature (batch,) -> codes. A sample is decided by its own seed,
      whatever it is batched with; temperature 0 (and below) takes the likeliest code at each step.

    With a latent predictor of p(codes | class) `score` and `predict_latents` take classes (batch,) int32, too, of which
    one that the model does not know counts as none of them.

    A model without codes has the first three: `encode` gives means (batch, *code_shape, dim) float32, and `decode`
    takes vectors of that shape, draws from N(0, I) among them. Its bound needs draws, so that there is no `score`: a
    server is to give the same answer each time.
    """
    import numpy as np
    import tensorflow as tf
    from keras import ops

    from vq_keras.chunks import in_chunks
    from vq_keras.metrics import bits_per_dim
    from vq_keras.saved_model import Signature

    def signature(function, inputs, about):
        """With a batch of one image as an example for servers, and larger ones in parts."""
        example = {name: np.zeros((1, *shape[1:]), dtype) for name, (shape, dtype) in inputs.items()}
        columns = max(shape[1] if len(shape) > 1 else 1 for shape, _ in inputs.values())
        rows = max(1, PIXELS // math.prod(model.image_shape[:2]))
        return Signature(in_chunks(function, rows * columns), inputs, about, WORDS, [example])

    num_dims, num_codes = math.prod(model.image_shape), math.prod(model.code_shape)
    images = {"images": ((None, *model.image_shape), "uint8")}
    offered = {"reconstruct": signature(lambda images: {"images": model.reconstruct(images)}, images, RECONSTRUCT)}
    if not model.bottleneck.has_codes:
        vectors = {"vectors": ((None, *model.code_shape, model.bottleneck.dim), "float32")}
        return offered | {
            "encode": signature(lambda images: {"means": model.encode(images)}, images, "Encodes images to means."),
            "decode": signature(
                lambda vectors: {"images": model.decode(vectors)}, vectors, "Decodes vectors to images."
            ),
        }
    codes = {"codes": ((None, *model.code_shape), "int32")}

    def score(images, classes=None):
        codes = model.encode(images)
        parameters = model.decoder(model.bottleneck.decode(codes), training=False)
        nll_x = -model.likelihood.log_prob(parameters, images) / num_dims
        if model.latent_predictor is None:
            nll_z = ops.full_like(nll_x, math.log(model.bottleneck.num_codes))
        else:
            samples = ops.reshape(codes, (-1, num_codes, 1))
            nll_z = model.latent_predictor.nats(samples, classes) / num_codes
        return {
            "bits_per_dim": bits_per_dim(nll_x, nll_z, num_dims, num_codes),
            "bits_per_dim_reconstruction": bits_per_dim(nll_x, 0.0, num_dims, num_codes),
            "bits_per_dim_codes": bits_per_dim(0.0, nll_z, num_dims, num_codes),
        }

    def predict_latents(seed, temperature, classes=None):
        def numbers(one):
            # philox, because the default differs between devices.
            return tf.random.stateless_uniform((num_codes,), tf.stack([one, 0]), alg="philox")

        uniforms = tf.map_fn(numbers, seed, fn_output_signature=tf.TensorSpec((num_codes,), "float32"))
        context = {} if classes is None else {"classes": classes}
        return {"codes": model.latent_predictor.generate(uniforms, temperature, **context)}

    classes = {"classes": ((None,), "int32")} if model.num_classes else {}
    offered |= {
        "encode": signature(lambda images: {"codes": model.encode(images)}, images, "Encodes images to codes."),
        "decode": signature(lambda codes: {"images": model.decode(codes)}, codes, "Decodes codes to images."),
        "score": signature(score, images | classes, "Says how many bits images take."),
    }
    if model.latent_predictor is not None:
        each = {"seed": ((None,), "int32"), "temperature": ((None,), "float32")}
        offered["predict_latents"] = signature(predict_latents, each | classes, "Draws codes of new images.")
    return offered


def export(config):
    from vq_keras import model_card, saved_model
    from vq_keras.training import image

    model = image.load(config.run_dir)
    card = model_card.describe(config.run_dir, model)
    version = saved_model.write(config.out_dir, signatures(model), card=card)
    print(f"SavedModel: {version}")
    print(f"look at it with: saved_model_cli show --dir {version} --all")


def main(argv=None):
    return run_command(export, tyro.cli(Config, args=argv))


if __name__ == "__main__":
    sys.exit(main())
