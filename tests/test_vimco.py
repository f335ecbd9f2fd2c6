"""The bound of m samples and VIMCO's gradient, against sums over all that can be drawn from a small model."""

import itertools
import math

import keras
import numpy as np
import pytest
from keras import ops
from scipy import special

from vq_keras import vimco
from vq_keras.errors import InputError

# Two latents of three codes each: nine configurations z, all of which are summed over.
CONFIGURATIONS = np.array(list(itertools.product(range(3), repeat=2)))
NUMBERS = np.random.default_rng(4)
ENCODER = NUMBERS.normal(size=(2, 3))  # Logits of q(z | x), latent by latent.
DECODER = 2 * NUMBERS.normal(size=9)  # log p(x | z).
LOG_PRIOR = special.log_softmax(NUMBERS.normal(size=9))


def log_q(encoder):
    """log q(z | x) of the nine configurations."""
    by_code = special.log_softmax(encoder, axis=-1)
    return by_code[0, CONFIGURATIONS[:, 0]] + by_code[1, CONFIGURATIONS[:, 1]]


def draws(num_samples):
    """Everything that can be drawn, indices of configurations (9^m, m), and its probability (9^m,)."""
    indices = np.array(list(itertools.product(range(9), repeat=num_samples)))
    return indices, np.exp(log_q(ENCODER)[indices].sum(-1))


def expected_bound(encoder, decoder, num_samples):
    """E[log 1/m sum_j w_j] in float64."""
    indices, _ = draws(num_samples)
    log_weights = decoder + LOG_PRIOR - log_q(encoder)
    bounds = special.logsumexp(log_weights[indices], axis=-1) - math.log(num_samples)
    return np.sum(np.exp(log_q(encoder)[indices].sum(-1)) * bounds)


def gradient(function, *values):
    """The gradients of a scalar function at float32 values, as arrays."""
    values = [np.asarray(value, "float32") for value in values]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        values = [tf.constant(value) for value in values]
        with tf.GradientTape() as tape:
            tape.watch(values)
            result = function(*values)
        found = tape.gradient(result, values)
    else:
        import jax

        found = jax.jit(jax.grad(function, argnums=tuple(range(len(values)))))(*values)
    return [ops.convert_to_numpy(each).astype("float64") for each in found]


def differences(function, value, step=1e-5):
    """Central differences of a scalar function in float64."""
    result = np.zeros_like(value)
    for index in np.ndindex(*value.shape):
        shift = np.zeros_like(value)
        shift[index] = step
        result[index] = (function(value + shift) - function(value - shift)) / (2 * step)
    return result


@pytest.mark.parametrize("num_samples", [2, 3])
def test_the_estimate_is_right_on_average(num_samples):
    """Summed over all draws, so that nothing is left to chance: 81 of two samples, 729 of three."""
    indices, probabilities = draws(num_samples)

    def expected_estimate(encoder, decoder):
        by_code = ops.log_softmax(encoder, axis=-1)
        log_probs = ops.take(by_code[0], CONFIGURATIONS[:, 0]) + ops.take(by_code[1], CONFIGURATIONS[:, 1])
        log_priors = ops.convert_to_tensor(LOG_PRIOR[indices], "float32")
        terms = vimco.surrogate(ops.take(decoder, indices), log_priors, ops.take(log_probs, indices))
        return ops.sum(terms * ops.convert_to_tensor(probabilities, "float32"))

    for_encoder, for_decoder = gradient(expected_estimate, ENCODER, DECODER)
    truth = differences(lambda encoder: expected_bound(encoder, DECODER, num_samples), ENCODER)
    assert abs(truth).max() > 0.1
    np.testing.assert_allclose(for_encoder, truth, atol=1e-5)
    truth = differences(lambda decoder: expected_bound(ENCODER, decoder, num_samples), DECODER)
    np.testing.assert_allclose(for_decoder, truth, atol=1e-5)


def test_the_bound_is_the_elbo_for_one_sample_and_grows_with_their_number():
    expected = []
    for num_samples in (1, 2, 3):
        indices, probabilities = draws(num_samples)
        values = (DECODER[indices], LOG_PRIOR[indices], log_q(ENCODER)[indices])
        bounds = ops.convert_to_numpy(vimco.bound(*(ops.convert_to_tensor(each, "float32") for each in values)))
        expected.append(np.sum(probabilities * bounds))
        assert expected[-1] == pytest.approx(expected_bound(ENCODER, DECODER, num_samples), rel=1e-5)
    q = np.exp(log_q(ENCODER))
    assert expected[0] == pytest.approx(np.sum(q * (DECODER + LOG_PRIOR - np.log(q))), rel=1e-5)
    evidence = special.logsumexp(DECODER + LOG_PRIOR)
    assert expected[0] + 0.1 < expected[1] < expected[2] - 0.05 < evidence


def by_hand(log_likelihoods, log_priors, log_probs):
    """Bound, signals L - L_-j and normalised weights of one image, with loops over the formulas."""
    log_weights = log_likelihoods + log_priors - log_probs
    num_samples = len(log_weights)
    bound = special.logsumexp(log_weights) - math.log(num_samples)
    signals = []
    for j in range(num_samples):
        others = np.delete(log_weights, j)
        without = special.logsumexp([*others, others.mean()]) - math.log(num_samples)
        signals.append(bound - without)
    return bound, np.array(signals), special.softmax(log_weights)


# CIFAR-10's log-likelihoods are around -10,000 nats, where float32 tells a thousandth.
@pytest.mark.parametrize("offset, tolerance", [(0.0, 1e-5), (-10_000.0, 5e-3)])
def test_bound_split_and_gradients_by_hand(offset, tolerance):
    rng = np.random.default_rng(0)
    values = [3 * rng.normal(size=(6, 4)) + shift for shift in (offset, -40.0, -20.0)]
    values = [each.astype("float32").astype("float64") for each in values]
    tensors = [ops.convert_to_tensor(each, "float32") for each in values]
    found = [ops.convert_to_numpy(each(*tensors)) for each in (vimco.bound, vimco.surrogate, vimco.reconstruction)]
    gradients = gradient(lambda *terms: ops.sum(vimco.surrogate(*terms)), *values)
    for image in range(6):
        log_likelihoods, log_priors, log_probs = (each[image] for each in values)
        bound, signals, shares = by_hand(log_likelihoods, log_priors, log_probs)
        assert found[0][image] == found[1][image] == pytest.approx(bound, rel=1e-6)
        rest = np.sum(shares * (log_probs - log_priors + np.log(4 * shares)))
        assert found[2][image] + rest == pytest.approx(-bound, rel=1e-6)
        for part, expected in zip(gradients, (shares, shares, signals - shares), strict=True):
            np.testing.assert_allclose(part[image], expected, atol=tolerance)


def test_the_baseline_takes_most_of_the_variance_away():
    """Of the encoder's gradient over all draws of three samples, against the same estimate without L_-j."""
    indices, probabilities = draws(3)
    values = (DECODER[indices], LOG_PRIOR[indices], log_q(ENCODER)[indices])
    (coefficients,) = gradient(
        lambda log_probs: ops.sum(
            vimco.surrogate(*(ops.convert_to_tensor(each, "float32") for each in values[:2]), log_probs)
        ),
        values[2],
    )
    log_weights = values[0] + values[1] - values[2]
    bounds = special.logsumexp(log_weights, axis=-1, keepdims=True) - math.log(3)
    plain = bounds - special.softmax(log_weights, axis=-1)
    one_hot = np.eye(3)[CONFIGURATIONS]  # (9, 2, 3); d log q(z) / d logits is this less the probabilities.
    slopes = one_hot - special.softmax(ENCODER, axis=-1)

    def variance(coefficients):
        estimates = np.einsum("nm,nmld->nld", coefficients, slopes[indices]).reshape(len(indices), -1)
        mean = probabilities @ estimates
        return mean, np.sum(probabilities @ np.square(estimates - mean))

    (mean, with_baseline), (same, without) = variance(coefficients), variance(plain)
    np.testing.assert_allclose(mean, same, atol=1e-5)
    assert with_baseline < 0.5 * without


def test_one_sample_has_no_others_to_be_compared_with():
    with pytest.raises(InputError, match="there is 1 draw for each x"):
        vimco.surrogate(*(ops.zeros((2, 1)) for _ in range(3)))
