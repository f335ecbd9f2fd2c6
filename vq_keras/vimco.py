"""Bounds on log p(x) of several draws from q(z | x), and gradients for them that need no gradient through a draw.

(VIMCO: A. Mnih, D. Rezende. Variational Inference for Monte Carlo Objectives. 2016.) For each x there are m draws
z_1 .. z_m of q, told by `log_likelihoods` log p(x | z_j), `log_priors` log p(z_j) and `log_probs` log q(z_j | x), all
float32 (batch, m) in nats.
"""

import math

from keras import ops

from vq_keras.errors import InputError


def bound(log_likelihoods, log_priors, log_probs):
    """A lower bound on log p(x), in expectation: log of the mean importance weight of m draws.

        L = log 1/m sum_j w_j,    w_j = p(x | z_j) p(z_j) / q(z_j | x)

    For m = 1 it is the evidence bound (ELBO) of one draw; its expectation grows with m (Burda et al. 2016).

    Args:
        log_likelihoods, log_priors, log_probs: float32 (batch, m).

    Returns:
        float32 (batch,), nats.

    Example:
        >>> values = ops.zeros((1, 4)), ops.log([[0.1, 0.2, 0.3, 0.4]]), ops.zeros((1, 4))
        >>> round(float(bound(*values)[0]), 4)  # ln 1/4
        -1.3863
    """
    return _log_mean(log_likelihoods + log_priors - log_probs)


def reconstruction(log_likelihoods, log_priors, log_probs):
    """The part of -L that is reconstruction: the mean of -log p(x | z_j) under the normalised importance weights.

    With v_j = w_j / sum_i w_i,

        -L = sum_j v_j (-log p(x | z_j))  +  sum_j v_j log q(z_j | x) / p(z_j)  +  KL(v || 1/m)

    exactly; the second and the third term, what the latents cost, become KL(q || p) for m = 1.

    Args:
        log_likelihoods, log_priors, log_probs: float32 (batch, m).

    Returns:
        float32 (batch,), nats.
    """
    shares = ops.softmax(log_likelihoods + log_priors - log_probs, axis=-1)
    return -ops.sum(shares * log_likelihoods, axis=-1)


def surrogate(log_likelihoods, log_priors, log_probs):
    """`bound`, with a gradient that estimates that of the bound's expectation (equations 5 to 10 of the paper).

    The expectation is over draws of q, which moves with the weights as well. The estimate of its gradient is

        sum_j (L - L_-j) grad log q(z_j | x)  +  grad L,

    where the second term takes the draws as given, and L_-j is L with w_j replaced by the geometric mean of the other
    weights: what the bound would have been without that draw. It does not depend on z_j, and so it changes no
    expectation, but takes most of the variance away; there is nothing to learn or tune in it.

    The draws let no gradient through, or it would count twice.

    Args:
        log_likelihoods, log_priors, log_probs: float32 (batch, m), m at least 2.

    Returns:
        float32 (batch,), nats.

    Raises:
        InputError: for one draw, which has no others to be compared with.
    """
    log_weights = log_likelihoods + log_priors - log_probs
    num_samples = log_weights.shape[-1]
    if num_samples < 2:
        raise InputError(f"there is {num_samples} draw for each x; VIMCO compares each with others: draw 2 or more.")
    whole = _log_mean(log_weights)
    # From here on relative to L, as the sums below would lose tenths of a nat of weights of exp(-17,000).
    relative = ops.stop_gradient(log_weights - whole[:, None])
    means_of_others = (ops.sum(relative, axis=-1, keepdims=True) - relative) / (num_samples - 1)
    # Row j has the others' mean in place of its own weight.
    itself = ops.eye(num_samples, dtype="bool")
    without = _log_mean(ops.where(itself, means_of_others[..., None], relative[:, None]))
    return whole - ops.sum(without * (log_probs - ops.stop_gradient(log_probs)), axis=-1)


def _log_mean(log_weights):
    return ops.logsumexp(log_weights, axis=-1) - math.log(log_weights.shape[-1])
