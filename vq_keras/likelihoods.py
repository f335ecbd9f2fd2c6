"""Likelihoods p(image | decoder output) of images with 256 grey levels.

A likelihood is a plain object without weights: the decoder gives `parameters`, `num_parameters(channels)` numbers for
each pixel, and the likelihood turns them into log-probabilities, samples and reconstructions. All arithmetic is
float32 under every dtype policy, because 3,072 sub-pixels summed in bfloat16 are off by tens of nats. Each likelihood
is a probability mass, which sums to one over the 256 levels.
"""

import math

import keras
import numpy as np
from keras import ops

from vq_keras import inverse_cdf, log_mass
from vq_keras.errors import InputError

# exp(-7) of the range [-1, 1] is about a ninth of a grey level; narrower scales only sharpen rounding errors.
MIN_LOG_SCALE = -7.0


class Likelihood:
    """The contract: log-probability, samples and reconstructions of images, given the decoder's parameters.

    Shapes: `parameters` float (batch, height, width, num_parameters(channels)) of any float dtype, `images` uint8 or
    int32 (batch, height, width, channels) with values 0..255.
    """

    def num_parameters(self, channels: int) -> int:
        """Numbers that the decoder gives for each pixel of an image with so many channels."""
        raise NotImplementedError

    def log_prob(self, parameters, images):
        """log p(image), float32 (batch,): nats, summed over all sub-pixels.

        Raises:
            InputError: if the last axis of `parameters` does not fit the channels of `images`.
        """
        raise NotImplementedError

    def sample(self, parameters, seed):
        """Images drawn from p(image), uint8 (batch, height, width, channels).

        Args:
            parameters: what the decoder gives.
            seed: an int, which draws the same images each time, or a `keras.random.SeedGenerator`.

        Raises:
            InputError: if the last axis of `parameters` fits no number of channels.
        """
        raise NotImplementedError

    def mode(self, parameters):
        """Reconstructions, uint8 (batch, height, width, channels); each likelihood says which value it takes.

        Raises:
            InputError: if the last axis of `parameters` fits no number of channels.
        """
        raise NotImplementedError

    def get_config(self) -> dict:
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def _checked(self, parameters, channels):
        given, needed = parameters.shape[-1], self.num_parameters(channels)
        if given != needed:
            raise InputError(
                f"{type(self).__name__} needs {needed} parameters for each pixel of {channels} channels, but the last "
                f"axis of the parameters has {given}; give the decoder {needed} outputs."
            )
        return ops.cast(parameters, "float32")

    def _channels(self, parameters):
        """The number of channels that the last axis of `parameters` was made for."""
        given, channels = parameters.shape[-1], 1
        while self.num_parameters(channels) < given:
            channels += 1
        self._checked(parameters, channels)
        return channels


@keras.saving.register_keras_serializable(package="vq_keras")
class Categorical(Likelihood):
    """A softmax over the 256 levels of each sub-pixel, all independent: both papers' choice for CIFAR-10.

    Parameters of a pixel: 256 logits for each channel, the channel outermost (oord2017 section 4.1, roy2018
    section 5.2). `mode` is the most probable level of each sub-pixel, the exact mode.

    Example:
        >>> likelihood = Categorical()
        >>> flat = keras.ops.zeros((1, 32, 32, likelihood.num_parameters(3)))
        >>> log_prob = likelihood.log_prob(flat, keras.ops.ones((1, 32, 32, 3), "uint8"))
        >>> round(float(log_prob[0]))  # -3072 ln 256
        -17035
    """

    def num_parameters(self, channels: int) -> int:
        return 256 * channels

    def log_prob(self, parameters, images):
        logits = self._split(self._checked(parameters, images.shape[-1]), images.shape[-1])
        # TensorFlow's fused kernel gathers by id, in half the time of logsumexp and take_along_axis (75 against 154
        # ms on two cores, forward and backward, for 32 CIFAR-10 images).
        nats = ops.sparse_categorical_crossentropy(ops.cast(images, "int32"), logits, from_logits=True)
        return -ops.sum(nats, axis=(1, 2, 3))

    def sample(self, parameters, seed):
        channels = self._channels(parameters)
        logits = self._split(ops.cast(parameters, "float32"), channels)
        levels = keras.random.categorical(ops.reshape(logits, (-1, 256)), 1, dtype="int32", seed=seed)
        return ops.cast(ops.reshape(levels, (*ops.shape(parameters)[:-1], channels)), "uint8")

    def mode(self, parameters):
        return ops.cast(ops.argmax(self._split(parameters, self._channels(parameters)), axis=-1), "uint8")

    def _split(self, parameters, channels):
        return ops.reshape(parameters, (*ops.shape(parameters)[:-1], channels, 256))


@keras.saving.register_keras_serializable(package="vq_keras")
class DiscretizedLogisticMixture(Likelihood):
    """A mixture of discretised logistics for each pixel, its later channels linear in the earlier ones.

    With s the logistic function, x_c the scaled level of channel c and mixture component i (PixelCNN++, Salimans et
    al. 2017, equations 2 and 3, for any number of channels):

        p(x) = sum_i pi_i prod_c [s((x_c + 1/255 - m_ic) / scale_ic) - s((x_c - 1/255 - m_ic) / scale_ic)]
        m_ic = mean_ic + sum_{j < c} tanh(k_icj) x_j

    Parameters of a pixel, M components and C channels: M logits of pi, then M x C means, M x C log-scales, and
    M x C (C - 1) / 2 coefficients k in the order (1,0), (2,0), (2,1), ...; log-scales below -7 count as -7.

    `mode` is the location of the most probable component, rounded: m_ic, channel after channel, given the channels
    already rounded. That is the mode when one component dominates; the exact mode of a mixture has no closed form.

    Args:
        num_components: M, at least 1.

    Raises:
        InputError: for fewer than one component.

    Example:
        >>> likelihood = DiscretizedLogisticMixture(num_components=5)
        >>> likelihood.num_parameters(channels=3)
        50
    """

    def __init__(self, num_components: int = 10):
        if num_components < 1:
            raise InputError(f"num_components is {num_components}; a mixture has at least 1 component.")
        self.num_components = num_components

    def get_config(self) -> dict:
        return {"num_components": self.num_components}

    def num_parameters(self, channels: int) -> int:
        return self.num_components * (1 + 2 * channels + channels * (channels - 1) // 2)

    def log_prob(self, parameters, images):
        channels = images.shape[-1]
        logits, means, log_scales, coefficients = self._split(self._checked(parameters, channels), channels)
        levels = ops.cast(images, "int32")[..., None, :]
        x = log_mass.scaled(levels)
        given = [x[..., c] for c in range(channels)]
        locations = [self._location(c, means, coefficients, given) for c in range(channels)]
        log_masses = log_mass.logistic(levels, x - ops.stack(locations, axis=-1), log_scales)
        log_mixture = ops.log_softmax(logits, axis=-1) + ops.sum(log_masses, axis=-1)
        return ops.sum(ops.logsumexp(log_mixture, axis=-1), axis=(1, 2))

    def sample(self, parameters, seed):
        channels = self._channels(parameters)
        logits, *components = self._split(ops.cast(parameters, "float32"), channels)
        # One draw for both, because a second one from the same int would be the same numbers. The smallest float32
        # stands for zero, whose logarithm is not finite.
        shape = (*ops.shape(logits)[:-1], 1 + channels)
        uniforms = keras.random.uniform(shape, minval=np.finfo("float32").tiny, dtype="float32", seed=seed)
        chosen = inverse_cdf.draw(logits, uniforms[..., :1])[..., 0]
        means, log_scales, coefficients = self._choose(chosen, components)
        logistic = ops.log(uniforms[..., 1:]) - ops.log1p(-uniforms[..., 1:])
        return self._unroll(channels, means, coefficients, ops.exp(log_scales) * logistic)

    def mode(self, parameters):
        channels = self._channels(parameters)
        logits, *components = self._split(ops.cast(parameters, "float32"), channels)
        means, _, coefficients = self._choose(ops.argmax(logits, axis=-1), components)
        return self._unroll(channels, means, coefficients, ops.zeros_like(means))

    def _split(self, parameters, channels):
        """Logits (b, h, w, M); means, floored log-scales (b, h, w, M, C) and coefficients (b, h, w, M, pairs)."""
        sizes = [1, channels, channels, channels * (channels - 1) // 2]
        ends = np.cumsum(np.array(sizes) * self.num_components)
        logits, *components = ops.split(parameters, ends[:-1].tolist(), axis=-1)
        leading = ops.shape(parameters)[:-1]
        means, log_scales, coefficients = (
            ops.reshape(part, (*leading, self.num_components, size))
            for part, size in zip(components, sizes[1:], strict=True)
        )
        return logits, means, ops.maximum(log_scales, MIN_LOG_SCALE), ops.tanh(coefficients)

    def _choose(self, chosen, components):
        """The parameters of one component for each pixel, (b, h, w, size) each."""
        return [ops.take_along_axis(part, chosen[..., None, None], axis=-2)[..., 0, :] for part in components]

    def _location(self, channel, means, coefficients, x):
        """m_ic of one channel, from the scaled levels x of the channels before it."""
        first = channel * (channel - 1) // 2
        location = means[..., channel]
        for j in range(channel):
            location = location + coefficients[..., first + j] * x[j]
        return location

    def _unroll(self, channels, means, coefficients, noise):
        # Later channels see the rounded value of earlier ones, as log_prob does: anything else would sample from
        # another distribution than the one that is scored.
        levels, x = [], []
        for channel in range(channels):
            location = self._location(channel, means, coefficients, x)
            levels.append(log_mass.nearest_level(location + noise[..., channel]))
            x.append(log_mass.scaled(levels[-1]))
        return ops.cast(ops.stack(levels, axis=-1), "uint8")


@keras.saving.register_keras_serializable(package="vq_keras")
class Gaussian(Likelihood):
    """A normal distribution for each sub-pixel, its mass gathered in the 256 levels.

        p(x) = Phi((x + 1/255 - mean) / scale) - Phi((x - 1/255 - mean) / scale)

    Parameters of a pixel with C channels: C means, and with `scale=None` then C log-scales; those below -7 count
    as -7. With a fixed scale, -log p is (x - mean)^2 / (2 scale^2) plus a constant, so training minimises the mean
    squared error; only the two outermost levels differ, which are content with a mean beyond them.

    `mode` is the level nearest to the mean. That is the most probable one, unless the scale is so large that an
    outermost level, which takes the whole tail, has more.

    Args:
        scale: None, or the standard deviation in units of the range [-1, 1] (127.5 grey levels).

    Raises:
        InputError: for a scale of 0 or less.

    Example:
        >>> Gaussian(scale=0.1).num_parameters(channels=3), Gaussian().num_parameters(channels=3)
        (3, 6)
    """

    def __init__(self, scale: float | None = None):
        if scale is not None and not scale > 0:
            raise InputError(f"scale is {scale}; give a number above 0, or None to let the decoder predict it.")
        self.scale = scale

    def get_config(self) -> dict:
        return {"scale": self.scale}

    def num_parameters(self, channels: int) -> int:
        return channels if self.scale else 2 * channels

    def log_prob(self, parameters, images):
        means, log_scales = self._split(self._checked(parameters, images.shape[-1]))
        levels = ops.cast(images, "int32")
        return ops.sum(log_mass.normal(levels, log_mass.scaled(levels) - means, log_scales), axis=(1, 2, 3))

    def sample(self, parameters, seed):
        self._channels(parameters)
        means, log_scales = self._split(ops.cast(parameters, "float32"))
        noise = keras.random.normal(ops.shape(means), dtype="float32", seed=seed)
        return ops.cast(log_mass.nearest_level(means + ops.exp(log_scales) * noise), "uint8")

    def mode(self, parameters):
        self._channels(parameters)
        means, _ = self._split(ops.cast(parameters, "float32"))
        return ops.cast(log_mass.nearest_level(means), "uint8")

    def _split(self, parameters):
        if self.scale:
            return parameters, ops.full_like(parameters, math.log(self.scale))
        means, log_scales = ops.split(parameters, 2, axis=-1)
        return means, ops.maximum(log_scales, MIN_LOG_SCALE)


def _mean_squared_error():
    return Gaussian(scale=0.1)


BY_NAME = {
    "categorical": Categorical,
    "logistic_mixture": DiscretizedLogisticMixture,
    "gaussian": Gaussian,
    "mse": _mean_squared_error,
}


def get(identifier: str | Likelihood) -> Likelihood:
    """A likelihood by name, with its default arguments; an instance is passed through.

    "mse" is `Gaussian(scale=0.1)`. bits/dim is least where the scale equals the root mean squared error, and 0.1 is
    that error at 26 dB PSNR, a fair reconstruction. The scale also weighs the error against a bottleneck's losses:
    -log p is 50 times the mean squared error for each sub-pixel.

    Args:
        identifier: "categorical", "logistic_mixture", "gaussian", "mse", or a `Likelihood`.

    Raises:
        InputError: for another name; the message lists the known ones.

    Example:
        >>> get("mse").scale
        0.1
    """
    if isinstance(identifier, Likelihood):
        return identifier
    if identifier not in BY_NAME:
        raise InputError(f"there is no likelihood {identifier!r}; the known ones are {', '.join(sorted(BY_NAME))}.")
    return BY_NAME[identifier]()
