"""log p(x) of a discrete autoencoder, summed over all fields of codes that there are: for tiny models."""

import itertools
import math

import numpy as np
from keras import ops

from vq_keras.errors import InputError

MAX_FIELDS = 2**16


def log_likelihood(model, images):
    """log p(x) = log sum_z p(x | z) p(z) over all codes z (oord2017 section 3.2).

    The paper takes the one term of the encoder's codes for the sum, because a decoder that has only seen those puts no
    mass elsewhere: log p(x) >= log p(x | z_q(x)) p(z_q(x)), and nearly equal once trained. Here the rest of the sum
    is there, too, so that it can be said how nearly. The prior is the model's latent predictor, or uniform.

    Args:
        model: an `ImageAutoencoder` with codes, without classes, of no more than 65,536 fields of codes.
        images: uint8 (batch, *model.image_shape).

    Returns:
        float64 numpy (batch,), nats.

    Raises:
        InputError: for a model with more fields of codes than can be summed over.

    Example:
        >>> from vq_keras import bottlenecks
        >>> from vq_keras.models.image import ImageAutoencoder
        >>> model = ImageAutoencoder(bottlenecks.VectorQuantizer(num_codes=4), (4, 4, 1), latents_per_position=2)
        >>> log_likelihood(model, np.zeros((3, 4, 4, 1), "uint8")).shape  # over 4 x 4 fields
        (3,)
    """
    num_codes, num_positions = model.bottleneck.num_codes, math.prod(model.code_shape)
    if num_codes**num_positions > MAX_FIELDS:
        raise InputError(
            f"there are {num_codes}^{num_positions} fields of codes, too many to sum over; give a model with no more "
            f"than {MAX_FIELDS:,}."
        )
    fields = np.array(list(itertools.product(range(num_codes), repeat=num_positions)), "int32")
    parameters = model.decoder(model.bottleneck.decode(fields.reshape(-1, *model.code_shape)), training=False)
    if model.latent_predictor is None:
        log_prior = np.full(len(fields), -num_positions * math.log(num_codes))
    else:
        log_prior = -ops.convert_to_numpy(model.latent_predictor.nats(fields[..., None]))
    log_likelihoods = []
    for image in images:
        each = np.repeat(image[None], len(fields), axis=0)
        log_likelihoods.append(ops.convert_to_numpy(model.likelihood.log_prob(parameters, each)))
    return np.logaddexp.reduce(np.array(log_likelihoods, "float64") + log_prior, axis=1)
