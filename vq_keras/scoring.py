"""What an image autoencoder says of batches of images: codes, and the nats of each image."""

import math
from collections.abc import Iterable, Iterator

import keras
import numpy as np
from keras import ops

from vq_keras.errors import InputError
from vq_keras.metrics import psnr, squared_distances


class Encode(keras.Model):
    """images -> their argmin codes, the latents' squared distances from those, and samples drawn as in training. A
    model for the sake of `predict_on_batch`, which compiles the same function on every backend."""

    def __init__(self, model):
        super().__init__(dtype="float32")
        self.encoder = model.encoder
        self.bottleneck = model.bottleneck

    def call(self, images):
        latents = self.encoder(images, training=False)
        codes = self.bottleneck.encode(latents)
        quantized = self.bottleneck.decode_samples(ops.expand_dims(codes, -1))
        distances = squared_distances(latents, quantized)
        return {"codes": codes, "samples": self.bottleneck.sample(latents), "distances": distances}


class Score(keras.Model):
    """{images, samples (batch, *positions, m)} and maybe classes -> nats of each image and of its codes, and its PSNR,
    all (batch,)."""

    def __init__(self, model):
        super().__init__(dtype="float32")
        self.bottleneck = model.bottleneck
        self.decoder = model.decoder
        self.likelihood = model.likelihood
        self.latent_predictor = model.latent_predictor

    def call(self, inputs):
        images, samples = inputs["images"], inputs["samples"]
        parameters = self.decoder(self.bottleneck.decode_samples(samples), training=False)
        nll_x = -self.likelihood.log_prob(parameters, images)
        flat = ops.reshape(samples, (-1, math.prod(samples.shape[1:-1]), samples.shape[-1]))
        if self.latent_predictor is None:
            nll_z = ops.full_like(nll_x, flat.shape[1] * math.log(self.bottleneck.num_codes))
        else:
            nll_z = self.latent_predictor.nats(flat, inputs.get("classes"))
        return {"nll_x": nll_x, "nll_z": nll_z, "psnr": psnr(images, self.likelihood.mode(parameters))}


class Bound(keras.Model):
    """{images} -> the two terms of the model's bound in nats of each image, and the PSNR of its reconstruction."""

    def __init__(self, model):
        super().__init__(dtype="float32")
        self.autoencoder = model

    def call(self, inputs):
        images = inputs["images"]
        wanted = {name: inputs[name] for name in self.autoencoder.input}
        terms = self.autoencoder(wanted, training=False)
        return {
            "nll_x": terms["nll_x"] * math.prod(self.autoencoder.image_shape),
            "nll_z": terms["nll_z"] * math.prod(self.autoencoder.code_shape),
            "psnr": psnr(images, self.autoencoder.reconstruct(images)),
        }


def encoded(model, batches: Iterable[dict]) -> Iterator[tuple]:
    """(size, inputs, codes, samples, distances) of each batch, as `filled_up` gives the first two."""
    encode = Encode(model)
    for size, inputs in filled_up(model, batches):
        outputs = encode.predict_on_batch(inputs["images"])
        yield size, inputs, outputs["codes"], outputs["samples"], outputs["distances"]


def filled_up(model, batches: Iterable[dict]) -> Iterator[tuple]:
    """(size, inputs) of each batch, inputs arrays by name filled up to the size of the largest batch so far.

    A smaller last batch would be compiled for its own shape, which takes longer than to score it: its images are
    repeated, and only the first `size` rows count.
    """
    largest = 0
    for batch in batches:
        images = ops.convert_to_numpy(batch["images"])
        if images.shape[1:] != tuple(model.image_shape):
            raise InputError(f"images have the shape {images.shape[1:]}, but the model needs {model.image_shape}.")
        size, largest = len(images), max(largest, len(images))
        if size == 0:
            continue
        rows = np.arange(largest) % size
        inputs = {"images": images[rows]}
        if model.num_classes:
            if "classes" not in batch:
                raise InputError("the latent predictor is one of classes, but these images have none; give theirs.")
            inputs["classes"] = ops.convert_to_numpy(batch["classes"])[rows]
        yield size, inputs
