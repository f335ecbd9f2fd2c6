"""What tests of layers and models share: functions as one graph, results as float32 arrays."""

import keras
import numpy as np
from keras import ops


def numpy(x):
    return np.array(ops.convert_to_numpy(ops.cast(x, "float32")))


def compiled(function):
    """The function as one graph: eager JAX compiles every operation for itself, which takes longer than tests may."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function)
