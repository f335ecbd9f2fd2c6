"""Quantisation by a random projection."""

import keras
from keras import ops

from vq_keras.bottlenecks import assignment
from vq_keras.bottlenecks.base import Bottleneck, mean_over_elements, straight_through
from vq_keras.bottlenecks.sphere import l2_normalize
from vq_keras.errors import InputError


@keras.saving.register_keras_serializable(package="vq_keras")
class RandomProjectionQuantizer(Bottleneck):
    """The nearest of frozen random codes, seen through a frozen random projection (BEST-RQ, Chiu et al. 2022, 3.1).

        z = argmin_k | c_k - P z_e / |P z_e| |,    |c_k| = 1,    z_q = V c_z
        loss = commitment_weight |z_e - sg(z_q)|^2 + codebook_weight |sg(z_e) - z_q|^2

    P is drawn by Xavier's rule, the codes c from a normal distribution and then normalised; neither is ever trained,
    so the codes cannot collapse. In the paper the ids are targets of masked prediction and nothing is decoded. The
    learned map V from a code vector back to the latents' dimensions, trained by the codebook loss, is an addition of
    this library, by which the quantiser can stand in an autoencoder.

    Args:
        num_codes: codes in each codebook, at least 2.
        codebook_dim: dimensions of the codes; the paper uses 16 with 8,192 codes.
        num_codebooks: independent projections and codebooks, one for each index of the axis before the last.
        commitment_weight: of the mean over all elements of |z_e - sg(z_q)|^2.
        codebook_weight: likewise of |sg(z_e) - z_q|^2, which trains V.
        seed: of the projection and the codes.

    Shapes:
        latents (batch, *positions, dim), with `num_codebooks` > 1 (batch, *positions, num_codebooks, dim);
        see `Bottleneck` for what is returned.

    Raises:
        InputError: for an argument outside its range, or latents and a mask that do not fit.

    Example:
        >>> quantizer = RandomProjectionQuantizer(num_codes=8192, seed=1)
        >>> quantizer(keras.random.normal((2, 100, 64)))["codes"].shape
        (2, 100)
    """

    def __init__(
        self,
        num_codes,
        codebook_dim=16,
        num_codebooks=1,
        commitment_weight=0.25,
        codebook_weight=1.0,
        seed=None,
        **kwargs,
    ):
        super().__init__(num_codes, num_codebooks, **kwargs)
        if codebook_dim < 1:
            raise InputError(f"codebook_dim is {codebook_dim}; give 1 or more.")
        if not commitment_weight >= 0:
            raise InputError(f"commitment_weight is {commitment_weight}; give 0 or more.")
        if not codebook_weight >= 0:
            raise InputError(f"codebook_weight is {codebook_weight}; give 0 or more.")
        self.codebook_dim = codebook_dim
        self.commitment_weight = commitment_weight
        self.codebook_weight = codebook_weight
        self.seed = seed
        # One stream for both: initialisers with the same seed would draw the same numbers.
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        super().build(input_shape)
        books, state = self.num_codebooks, {"dtype": "float32", "autocast": False}
        xavier = keras.initializers.VarianceScaling(1.0, "fan_avg", "uniform", seed=self.seed_generator)

        def unit_vectors(shape, dtype):
            return l2_normalize(keras.random.normal(shape, dtype=dtype, seed=self.seed_generator))

        def matrices(shape, dtype):
            # One at a time: of a tensor of three axes the first would count as the area of a convolution.
            return ops.stack([xavier(shape[1:], dtype) for _ in range(shape[0])])

        self.projection = self.add_weight(
            shape=(books, self.dim, self.codebook_dim),
            initializer=matrices,
            trainable=False,
            name="projection",
            **state,
        )
        self.codebook = self.add_weight(
            shape=(books, self.num_codes, self.codebook_dim),
            initializer=unit_vectors,
            trainable=False,
            name="codebook",
            **state,
        )
        self.outward = self.add_weight(
            shape=(books, self.codebook_dim, self.dim), initializer=matrices, name="outward", **state
        )

    def _assign(self, flat, training):
        projected = l2_normalize(ops.einsum("ngd,gdc->ngc", ops.stop_gradient(flat), self.projection))
        codes = assignment.nearest(projected, ops.convert_to_tensor(self.codebook))
        return codes, codes

    def _lookup(self, samples):
        vectors = assignment.lookup(ops.convert_to_tensor(self.codebook), samples)
        return ops.einsum("ngc,gcd->ngd", vectors, self.outward)

    def _quantize(self, flat, weights, training, num_examples):
        samples, codes = self._assign(flat, training)
        vectors = self._lookup(samples)
        commitment = mean_over_elements(ops.square(flat - ops.stop_gradient(vectors)), weights)
        codebook_loss = mean_over_elements(ops.square(ops.stop_gradient(flat) - vectors), weights)
        self.add_loss(self.commitment_weight * commitment)
        self.add_loss(self.codebook_weight * codebook_loss)
        return straight_through(flat, vectors), samples, codes

    def get_config(self):
        names = ("codebook_dim", "commitment_weight", "codebook_weight", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
