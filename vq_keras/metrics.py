"""Figures of merit: bits/dim, reconstruction error and the use of a codebook."""

import math

import keras
from keras import ops

from vq_keras.bottlenecks import replicas
from vq_keras.errors import InputError

# Of variables that every replica assigns the same value, as what goes into it was summed over the replicas before.
# Keras's default, a sum over replicas when read, leaves each replica's own result wrong, and divides what is assigned
# outside of a step among the replicas, whole numbers rounded down.
REDUCED = "only_first_replica"


def bits_per_dim(nll_x, nll_z, num_dims, num_codes):
    """Bits for each sub-pixel that an image costs: its reconstruction and its codes together.

        (nll_x n_x + nll_z n_z) / n_x / ln 2

    (roy2018 section 5.2). An upper bound on -log2 p(x) if the codes are one choice and coded as such: the strict
    mode of `evaluation.evaluate`.

    Args:
        nll_x: mean -log p(x | codes) in nats for each of the n_x = `num_dims` sub-pixels.
        nll_z: mean -log p(codes) in nats for each of the n_z = `num_codes` codes of an image.
        num_dims: sub-pixels of an image, 3,072 for CIFAR-10.
        num_codes: codes of an image (not the size of the codebook), 640 for 8x8x10.

    Returns:
        bits/dim, of the type of the arguments: floats, numpy arrays or tensors.

    Example:
        >>> round(bits_per_dim(0.0, math.log(256), 3072, 640), 4)  # A uniform prior over 256 codes.
        1.6667
    """
    return (nll_x * num_dims + nll_z * num_codes) / num_dims / math.log(2)


def psnr(images, reconstructions):
    """Peak signal-to-noise ratio of each image in decibels, 10 log10(255^2 / mean squared error).

    The figure for a data set is the mean of these, not the ratio of the mean error: the usual convention. An image
    equal to its reconstruction would be infinite and take the mean with it, so the error is at least that of one
    sub-pixel off by one level: 83.0 dB at 32x32x3.

    Args:
        images, reconstructions: (batch, height, width, channels) with values 0..255 of any dtype.

    Returns:
        float32 (batch,).

    Example:
        >>> decibels = psnr(keras.ops.zeros((1, 2, 2, 3), "uint8"), keras.ops.full((1, 2, 2, 3), 51, "uint8"))
        >>> round(float(decibels[0]), 2)
        13.98
    """
    squares = ops.square(ops.cast(images, "float32") - ops.cast(reconstructions, "float32"))
    floor = 1.0 / math.prod(images.shape[1:])
    error = ops.maximum(ops.mean(squares, axis=(1, 2, 3)), floor)
    return 10.0 * ops.log10(255.0**2 / error)


def squared_distances(latents, quantized):
    """|z_e - z_q|^2 / dim: the mean over the dimensions of each latent's squared distance from its quantized vector.

    Args:
        latents, quantized: (batch, *positions, dim), of any floating dtype.

    Returns:
        float32 (batch, *positions).

    Example:
        >>> squared_distances(keras.ops.ones((2, 3, 4)), keras.ops.zeros((2, 3, 4))).shape
        (2, 3)
    """
    return ops.mean(ops.square(ops.cast(latents, "float32") - ops.cast(quantized, "float32")), axis=-1)


class CodeUsage(keras.metrics.Metric):
    """How often each code was used, pooled over all batches since the last reset; subclasses make a number of it.

    Pooled, because the perplexity of a batch depends on its size and the mean over batches means nothing. Counts are
    integers: float32 stops counting at 2^24, which an epoch of CIFAR-10 with a collapsed codebook passes (50,000 x
    640 codes). They are 64 bits wide on TensorFlow and 32 on JAX, which has no other by default: exact up to 2^31 - 1
    uses of one code, 3.3 million images of 640 codes that are all the same. On several replicas they are those of the
    whole batch on each: a perplexity is no mean of the replicas' own, and the value of a step, which Keras averages
    over the replicas, would be wrong.

    `update_state(codes)` takes int32 codes (batch, *positions), with several codebooks (batch, *positions,
    num_codebooks). Negative codes are masked positions and count nowhere. A model calls it in `compute_metrics` with
    the bottleneck's `codes`.

    Args:
        num_codes: codes in each codebook.
        num_codebooks: independent codebooks; above 1, the last axis of codes counts them.
        name: of the metric.

    Raises:
        InputError: if the last axis of codes is not `num_codebooks`.
    """

    def __init__(self, num_codes: int, num_codebooks: int = 1, name: str | None = None, **kwargs):
        super().__init__(name=name, **kwargs)
        self.num_codes = num_codes
        self.num_codebooks = num_codebooks
        self.counts = self.add_variable((num_codebooks, num_codes), "zeros", "int", REDUCED, name="counts")

    def update_state(self, codes):
        if self.num_codebooks > 1 and codes.shape[-1] != self.num_codebooks:
            raise InputError(
                f"codes of shape {tuple(codes.shape)} do not fit {self.num_codebooks} codebooks: "
                f"the last axis has to have the size {self.num_codebooks}."
            )
        codes = ops.reshape(ops.cast(codes, "int32"), (-1, self.num_codebooks))
        present = ops.cast(codes >= 0, self.counts.dtype)
        ids = ops.maximum(codes, 0) + self.num_codes * ops.arange(self.num_codebooks, dtype="int32")
        counts = ops.segment_sum(
            ops.reshape(present, (-1,)), ops.reshape(ids, (-1,)), num_segments=self.num_codebooks * self.num_codes
        )
        self.counts.assign_add(ops.reshape(replicas.all_reduce_sum(counts)[0], self.counts.shape))

    def shares(self):
        """The share of each code in the uses of its codebook, float32 (num_codebooks, num_codes); zeros at first."""
        counts = ops.cast(self.counts, "float32")
        return counts / ops.maximum(ops.sum(counts, axis=-1, keepdims=True), 1.0)

    def get_config(self):
        return {**super().get_config(), "num_codes": self.num_codes, "num_codebooks": self.num_codebooks}


@keras.saving.register_keras_serializable(package="vq_keras")
class Perplexity(CodeUsage):
    """exp of the entropy of the pooled code counts: K if all K codes are used alike, 1 if only one is used.

    With several codebooks, the mean of their perplexities. Arguments as for `CodeUsage`.

    Example:
        >>> metric = Perplexity(num_codes=4)
        >>> metric.update_state(keras.ops.array([0, 0, 1, 2]))
        >>> round(float(metric.result()), 4)
        2.8284
    """

    def __init__(self, num_codes: int, num_codebooks: int = 1, name: str = "perplexity", **kwargs):
        super().__init__(num_codes, num_codebooks, name, **kwargs)

    def result(self):
        shares = self.shares()
        # log 1 for an unused code, whose term is 0 log 0 = 0.
        terms = shares * ops.log(ops.where(shares > 0, shares, 1.0))
        return ops.mean(ops.exp(-ops.sum(terms, axis=-1)))


@keras.saving.register_keras_serializable(package="vq_keras")
class CodesInUse(CodeUsage):
    """The number of codes used at least once, summed over the codebooks. Arguments as for `CodeUsage`.

    Example:
        >>> metric = CodesInUse(num_codes=4)
        >>> metric.update_state(keras.ops.array([0, 0, 1, 2]))
        >>> int(metric.result())
        3
    """

    def __init__(self, num_codes: int, num_codebooks: int = 1, name: str = "codes_in_use", **kwargs):
        super().__init__(num_codes, num_codebooks, name, **kwargs)

    def result(self):
        return ops.sum(ops.cast(self.counts > 0, "float32"))


@keras.saving.register_keras_serializable(package="vq_keras")
class LargestShare(CodeUsage):
    """The largest share that any code has of the uses of its codebook: near 1 when a codebook has collapsed.

    Arguments as for `CodeUsage`.

    Example:
        >>> metric = LargestShare(num_codes=4)
        >>> metric.update_state(keras.ops.array([0, 0, 1, 2]))
        >>> float(metric.result())
        0.5
    """

    def __init__(self, num_codes: int, num_codebooks: int = 1, name: str = "largest_share", **kwargs):
        super().__init__(num_codes, num_codebooks, name, **kwargs)

    def result(self):
        return ops.max(self.shares())


@keras.saving.register_keras_serializable(package="vq_keras")
class CodebookDistance(keras.metrics.Metric):
    """Mean over latents of |z_e - z_q|^2 / dim: how far latents are from the vectors that replace them.

    This is what the straight-through gradient ignores. Where the latents' mean square is 1, as that of the image
    models' encoders is, it is a share: 0 if every latent is a code vector, 1 if z_q might as well be zero. One that
    rises during training says that the encoder outruns its codebook; one that stays near the latents' variance, that
    the codebook tells little about them. K codes for `dim` independent normal dimensions of variance 1 cannot bring it
    below K^(-2 / dim) (the rate-distortion bound): 0.25 for 256 codes of 8 dimensions.

    It means something where z_q stands for z_e in its own space, as it does for bottlenecks that pass the gradient
    straight through (`Bottleneck.passes_straight_through`), and not where the two are compared elsewhere, such as
    behind a learned map or on the unit sphere.

    Pooled over all batches since the last reset, each latent counting the same. It is kept as a mean and not as a sum,
    to which float32 would in the end add nothing more. On several replicas it is that of the whole batch on each.

    `update_state(distances, codes)` takes `squared_distances`, float32 (batch, *positions), and the bottleneck's codes,
    (batch, *positions) or with an axis more for the codes of one latent. Where the codes are negative, or all those of
    a latent are, the position is masked and does not count.

    Args:
        name: of the metric.

    Raises:
        InputError: if the codes do not fit the distances.

    Example:
        >>> metric = CodebookDistance()
        >>> metric.update_state(keras.ops.array([[0.5, 9.0], [0.1, 0.3]]), keras.ops.array([[7, -1], [0, 2]]))
        >>> round(float(metric.result()), 4)
        0.3
    """

    def __init__(self, name: str = "codebook_distance", **kwargs):
        super().__init__(name=name, **kwargs)
        self.mean = self.add_variable((), "zeros", "float32", REDUCED, name="mean")
        self.count = self.add_variable((), "zeros", "int", REDUCED, name="count")

    def update_state(self, distances, codes):
        several = len(codes.shape) - len(distances.shape)
        pairs = zip(codes.shape, distances.shape, strict=False)
        if several not in (0, 1) or any(None not in pair and pair[0] != pair[1] for pair in pairs):
            raise InputError(
                f"codes of shape {tuple(codes.shape)} do not fit distances of shape {tuple(distances.shape)}: "
                "there has to be a distance for each latent."
            )
        present = codes >= 0
        if several:
            present = ops.any(present, axis=-1)
        total, number = replicas.all_reduce_sum(
            ops.sum(ops.where(present, distances, 0.0)), ops.sum(ops.cast(present, "float32"))
        )
        self.count.assign_add(ops.cast(number, self.count.dtype))
        count = ops.maximum(ops.cast(self.count, "float32"), 1.0)
        self.mean.assign_add((total - number * self.mean) / count)

    def result(self):
        return self.mean + 0.0  # A tensor: a variable under a strategy cannot be read as a number.
