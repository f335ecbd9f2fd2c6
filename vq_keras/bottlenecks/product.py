"""Product quantisation: one code made of the codes of several blocks of a latent."""

import keras
from keras import ops

from vq_keras.bottlenecks import inner
from vq_keras.bottlenecks.base import Bottleneck
from vq_keras.errors import InputError


@keras.saving.register_keras_serializable(package="vq_keras")
class ProductQuantizer(Bottleneck):
    """Cuts each latent into blocks, quantises each with a codebook of its own, and joins their codes into one.

        z_q = [q_1(x_1), ..., q_B(x_B)],    code = sum_b code_b K_b^(b-1)

    (Jegou et al. 2011; decomposed vector quantisation, Kaiser et al. 2018 section 3.4.) K = K_b^B codes at the price
    of B K_b vectors; the code of the first block has the least weight. One block is the inner bottleneck itself.

    Args:
        bottleneck: a bottleneck for the blocks; its `num_codebooks` is the number of blocks, its `num_codes` K_b.
        projection: whether each latent goes through a fixed random matrix first, so that blocks are mixtures of all
            dimensions and not runs of them. What is decoded then lies in the projected space, as in the code that
            Kaiser et al. released.
        seed: of that matrix.

    Shapes:
        latents (batch, *positions, dim), dim a multiple of the number of blocks; codes (batch, *positions) in
        0 .. K_b^B - 1.

    Raises:
        InputError: where dim is no multiple of the number of blocks, or K does not fit into an int32.

    Example:
        >>> quantizer = ProductQuantizer(VectorQuantizer(num_codes=16, num_codebooks=2))
        >>> quantizer.num_codes
        256
        >>> quantizer(keras.random.normal((2, 8, 8, 64)), training=True)["codes"].shape
        (2, 8, 8)
    """

    def __init__(self, bottleneck, projection=False, seed=None, **kwargs):
        inner.check(bottleneck)
        num_codes = bottleneck.num_codes**bottleneck.num_codebooks
        if num_codes > 2**31:
            raise InputError(
                f"{bottleneck.num_codebooks} blocks of {bottleneck.num_codes} codes make {num_codes} joint codes, more "
                "than an int32 can count; take fewer blocks, or GroupedQuantizer, which keeps their codes apart."
            )
        super().__init__(num_codes, **kwargs)
        self.bottleneck = inner.adopt(self, bottleneck)
        self.projection = projection
        self.seed = seed

    @property
    def passes_straight_through(self):
        return self.bottleneck.passes_straight_through and not self.projection

    def build(self, input_shape):
        super().build(input_shape)
        blocks = self.bottleneck.num_codebooks
        if self.dim % blocks:
            raise InputError(f"latents of {self.dim} dimensions cannot be cut into {blocks} equal blocks.")
        if self.projection:
            self.matrix = self.add_weight(
                shape=(self.dim, self.dim),
                initializer=keras.initializers.GlorotUniform(seed=self.seed),
                name="projection",
                trainable=False,
                dtype="float32",
                autocast=False,
            )
        if not self.bottleneck.built:
            self.bottleneck.build((*input_shape[:-1], *self._blocks_shape()))

    def _blocks_shape(self):
        blocks = self.bottleneck.num_codebooks
        return (self.dim,) if blocks == 1 else (blocks, self.dim // blocks)

    def _cut(self, flat):
        """(n, 1, dim) -> (n, blocks, dim / blocks), or (n, dim) for one block."""
        if self.projection:
            flat = ops.matmul(flat, self.matrix)
        return ops.reshape(flat, (-1, *self._blocks_shape()))

    def _join(self, samples):
        """Codes of blocks (n, blocks, m) -> (n, 1, m)."""
        samples = ops.reshape(samples, (-1, self.bottleneck.num_codebooks, samples.shape[-1]))
        return ops.sum(samples * self._place_values(), axis=1, keepdims=True)

    def _place_values(self):
        powers = [self.bottleneck.num_codes**block for block in range(self.bottleneck.num_codebooks)]
        return ops.convert_to_tensor(powers, "int32")[:, None]

    def _assign(self, flat, training):
        blocks = self._cut(flat)
        codes = self._join(self.bottleneck.encode(blocks)[..., None])
        return (self._join(self.bottleneck.sample(blocks)) if training else codes), codes

    def _quantize(self, flat, weights, training, num_examples):
        outputs = self.bottleneck(self._cut(flat), mask=weights, training=training)
        codes = self._join(outputs["codes"][..., None])
        return ops.reshape(outputs["quantized"], ops.shape(flat)), self._join(outputs["samples"]), codes

    def _lookup(self, samples):
        blocks = samples // self._place_values() % self.bottleneck.num_codes
        if self.bottleneck.num_codebooks == 1:
            blocks = blocks[:, 0]
        return ops.reshape(self.bottleneck.decode_samples(blocks), (-1, 1, self.dim))

    def get_config(self):
        config = {**super().get_config(), "projection": self.projection, "seed": self.seed}
        del config["num_codes"], config["num_codebooks"]
        return {**config, "bottleneck": inner.serialize(self.bottleneck)}

    @classmethod
    def from_config(cls, config):
        return super().from_config({**config, "bottleneck": inner.deserialize(config["bottleneck"])})
