"""Vector quantisation with hard assignments."""

import keras

from vq_keras.bottlenecks import assignment
from vq_keras.bottlenecks.codebook_bottleneck import CodebookBottleneck
from vq_keras.bottlenecks.sphere import rotate_through


@keras.saving.register_keras_serializable(package="vq_keras")
class VectorQuantizer(CodebookBottleneck):
    """Replaces each latent by its nearest code vector (oord2017 equations 1 and 2).

        z = argmin_k |z_e - e_k|,   z_q = e_z,
        loss = commitment_weight |z_e - sg(z_q)|^2 (+ codebook_weight |sg(z_e) - z_q|^2 unless update="ema")

    With `update="ema"` this is hard EM of roy2018 section 2: the E step above, and an M step that averages the
    latents of each code over time.

    Args:
        num_codes: codes in each codebook, at least 2.
        num_codebooks: independent codebooks, one for each index of the axis before the last.
        update: "ema", or "gradient" for embeddings trained by the codebook loss, or "linear" for frozen ones behind a
            matrix that is trained by it (SimVQ); see `Codebook`.
        decay: of the moving averages, in [0, 1); oord2017 uses 0.99 and roy2018 0.999. None chooses by the numbers of
            latents and of codes, so that each code averages over enough of them, and not over more; see `Codebook`.
        epsilon: of the Laplace smoothing of the counts.
        initializer: "samples" (latents of the first batch), "kmeans" or "normal".
        restart_threshold: codes used less than this share of the mean start again on data; 0 for never.
        commitment_weight: beta in both papers, 0.25; here of the mean over dimensions, see `CodebookBottleneck`.
        codebook_weight: of the codebook loss.
        orthogonal_weight: of a loss that drives the codes apart, see `Codebook.orthogonality`; not for "ema".
        cosine: whether latents and codes are normalised to unit length first (ViT-VQGAN).
        rotation: whether gradients come back through a rotation in place of the identity, see `rotate_through`.
        seed: of initialisation and restarts.

    Shapes:
        latents (batch, *positions, dim), with `num_codebooks` > 1 (batch, *positions, num_codebooks, dim);
        see `Bottleneck` for what is returned.

    Raises:
        InputError: for an argument outside its range, or latents and a mask that do not fit.

    Example:
        >>> quantizer = VectorQuantizer(num_codes=512)
        >>> outputs = quantizer(keras.random.normal((2, 8, 8, 64)), training=True)
        >>> outputs["codes"].shape, outputs["quantized"].shape
        ((2, 8, 8), (2, 8, 8, 64))
    """

    def __init__(self, num_codes, num_codebooks=1, rotation=False, **kwargs):
        super().__init__(num_codes, num_codebooks, **kwargs)
        self.rotation = rotation

    @property
    def passes_straight_through(self):
        return super().passes_straight_through and not self.rotation

    def _choose(self, flat, training):
        codes = assignment.nearest(flat, self.codebook.embeddings)
        return codes, codes

    def _through(self, flat, vectors):
        return rotate_through(flat, vectors) if self.rotation else super()._through(flat, vectors)

    def get_config(self):
        return {**super().get_config(), "rotation": self.rotation}
