"""Bottlenecks inside others."""

import keras

from vq_keras.errors import InputError


def check(inner):
    """Refuses what cannot be a part of another bottleneck, before that one asks for its codes.

    Raises:
        InputError: for a bottleneck that gives a bound: another would hand on its quantized latents alone.
    """
    if inner.gives_bound:
        raise InputError(
            f"a {type(inner).__name__} cannot be a part of another bottleneck, in which the probabilities of its draws "
            "would be lost; give it to the model itself."
        )


def adopt(outer, inner):
    """Makes a bottleneck fit to be a part of another.

    Args:
        outer: the layer around it.
        inner: the bottleneck, not built yet or built; its policy and whether it is trainable may change.

    Returns:
        `inner`.
    """
    # What goes from one to the other is never rounded to half precision.
    inner.dtype_policy = "float32"
    if not outer.trainable:
        # Keras hands this on to the layers inside when it is set, but not when it is given from the start.
        inner.trainable = False
    return inner


def serialize(inner):
    """The configuration of a bottleneck inside another, for that one's `get_config`."""
    config = keras.saving.serialize_keras_object(inner)
    # What is read back is built with the layer around it; by its own shape it would be built before, and twice.
    config.pop("build_config", None)
    return config


deserialize = keras.saving.deserialize_keras_object
