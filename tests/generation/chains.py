"""Models so small that everything is known of them, for the tests of the loops that generate."""

import keras
import numpy as np
from keras import ops

JAX = keras.backend.backend() == "jax"


class Chain:
    """A random model whose next code depends on all codes before it, through a state that the cache carries.

    Sequences with other first states are other sentences. The same in numpy, in float64, is `log_probs`.
    """

    def __init__(self, seed, num_codes, scale=1.5, num_states=97):
        self.logits = scale * np.random.default_rng(seed).normal(size=(num_states, num_codes)).astype("float32")
        self.num_states = num_states

    def cache(self, first_states):
        # One more axis than a step function has to have, as caches of attention have more.
        return {"state": ops.convert_to_tensor(first_states, "int32")[:, None]}

    def step(self, previous, t, cache):
        state = (5 * cache["state"] + 11 * previous[:, None] + 3 * t + 1) % self.num_states
        return ops.take(ops.convert_to_tensor(self.logits), state[:, 0], axis=0), {"state": state}

    def log_probs(self, first_state, start, codes):
        """(len(codes) + 1, num_codes): those of each code after a prefix of `codes`, the empty one first."""
        rows, state = [], first_state
        for t, previous in enumerate([start, *codes]):
            state = (5 * state + 11 * previous + 3 * t + 1) % self.num_states
            row = self.logits[state].astype("float64")
            with np.errstate(divide="ignore"):
                rows.append(row - np.log(np.exp(row).sum()))
        return np.stack(rows)

    def log_prob(self, first_state, start, codes):
        """That of a sequence of codes."""
        return self.log_probs(first_state, start, codes)[np.arange(len(codes)), codes].sum()


def compiled(function, *shapes, dtypes=None):
    """`function` by `jax.jit`, or as one TensorFlow graph for arguments of these shapes, float32 unless said."""
    if JAX:
        import jax

        return jax.jit(function)
    import tensorflow as tf

    dtypes = dtypes or ["float32"] * len(shapes)
    return tf.function(function, input_signature=[tf.TensorSpec(*spec) for spec in zip(shapes, dtypes, strict=True)])
