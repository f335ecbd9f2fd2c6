"""A bottleneck in fewer dimensions than its latents."""

import keras
from keras import ops

from vq_keras.bottlenecks import inner
from vq_keras.bottlenecks.base import Bottleneck
from vq_keras.errors import InputError


@keras.saving.register_keras_serializable(package="vq_keras")
class Projected(Bottleneck):
    """Learned linear maps around a bottleneck, which then works in a space of its own (ViT-VQGAN, Yu et al. 2021, 3.2).

        z_q = V q(W z_e + b)

    A codebook of few dimensions, 8 to 32 in the paper, is used more evenly than one of the encoder's width; and finite
    scalar or lookup-free quantisation, which fix the dimensions of their latents, fit any encoder so. The map back has
    no bias: 0 stands for an absent code, and has to stay 0. With several codebooks all share both maps.

    Args:
        bottleneck: the bottleneck q. It computes in float32 from then on, under any policy, as do the maps.
        dim: dimensions of its latents; the default is its `latent_dim`, where it has one.

    Shapes:
        latents (batch, *positions, any); everything else is as for `bottleneck`, `num_codes` and `num_codebooks`
        among it.

    Raises:
        InputError: where `dim` is missing, or is not what `bottleneck` needs.

    Example:
        >>> quantizer = Projected(VectorQuantizer(num_codes=8192), dim=32)
        >>> outputs = quantizer(keras.random.normal((2, 8, 8, 768)))
        >>> outputs["codes"].shape, outputs["quantized"].shape
        ((2, 8, 8), (2, 8, 8, 768))
    """

    passes_straight_through = False

    def __init__(self, bottleneck, dim=None, **kwargs):
        inner.check(bottleneck)
        needed = getattr(bottleneck, "latent_dim", None)
        name = type(bottleneck).__name__
        if dim is None and needed is None:
            raise InputError(f"a {name} takes latents of any dimensions; give Projected the dim that it shall have.")
        if None not in (dim, needed) and dim != needed:
            raise InputError(f"dim is {dim}, but this {name} needs {needed}; leave dim out.")
        if dim is not None and dim < 1:
            raise InputError(f"dim is {dim}; give 1 or more.")
        super().__init__(bottleneck.num_codes, bottleneck.num_codebooks, **kwargs)
        self.bottleneck = inner.adopt(self, bottleneck)
        self.projected_dim = needed if dim is None else dim
        self.inward = keras.layers.Dense(self.projected_dim, dtype="float32", name="inward")

    def build(self, input_shape):
        self.dim = input_shape[-1]
        self.outward = keras.layers.Dense(self.dim, use_bias=False, dtype="float32", name="outward")
        inner_shape = (*input_shape[:-1], self.projected_dim)
        self.inward.build(input_shape)
        self.bottleneck.build(inner_shape)
        self.outward.build(inner_shape)
        self.built = True

    def code_shape(self, positions):
        return self.bottleneck.code_shape(positions)

    def call(self, latents, mask=None, training=None):
        outputs = self.bottleneck(self._project(latents), mask=mask, training=training)
        return {**outputs, "quantized": self._back(outputs["quantized"])}

    def compute_output_spec(self, latents, mask=None, training=None):
        self._check(latents)
        inner = keras.KerasTensor((*latents.shape[:-1], self.projected_dim), dtype="float32")
        quantized = keras.KerasTensor(latents.shape, dtype=self.compute_dtype)
        return {**self.bottleneck.compute_output_spec(inner), "quantized": quantized}

    def encode(self, latents):
        return self.bottleneck.encode(self._project(latents))

    def sample(self, latents):
        return self.bottleneck.sample(self._project(latents))

    def decode_samples(self, samples):
        return self._back(self.bottleneck.decode_samples(samples))

    def decode(self, codes):
        return self._back(self.bottleneck.decode(codes))

    def _project(self, latents):
        """The latents of the inner bottleneck; not a number where an element is none, for it to deal with."""
        self._check(latents)
        latents = ops.cast(latents, "float32")
        finite = ops.isfinite(latents)
        # Chosen on either side of the map: what stands in a masked position may be anything, and times its gradient
        # of zero would still make the kernel's gradient not a number.
        projected = self.inward(ops.where(finite, latents, 0.0))
        finite = ops.logical_and(
            ops.all(finite, axis=-1, keepdims=True), ops.isfinite(ops.sum(projected, axis=-1, keepdims=True))
        )
        return ops.where(finite, projected, float("nan"))

    def _back(self, vectors):
        return ops.cast(self.outward(vectors), self.compute_dtype)

    def get_config(self):
        config = {**super().get_config(), "dim": self.projected_dim}
        del config["num_codes"], config["num_codebooks"]
        return {**config, "bottleneck": inner.serialize(self.bottleneck)}

    @classmethod
    def from_config(cls, config):
        return super().from_config({**config, "bottleneck": inner.deserialize(config["bottleneck"])})
