"""Bottlenecks: layers from continuous latents to discrete codes."""

from vq_keras.bottlenecks.base import Bottleneck
from vq_keras.bottlenecks.soft_em import SoftEM
from vq_keras.bottlenecks.vector_quantizer import VectorQuantizer
from vq_keras.errors import InputError

NAMES = {"vector_quantizer": VectorQuantizer, "soft_em": SoftEM}


def get(name, /, **arguments):
    """A bottleneck by name.

    Args:
        name: a key of `NAMES`.
        **arguments: of that bottleneck's constructor, `name` of the layer among them.

    Returns:
        A `Bottleneck`.

    Raises:
        InputError: for an unknown name; the message lists the known ones.

    Example:
        >>> get("soft_em", num_codes=256, num_samples=5).num_samples
        5
    """
    if name not in NAMES:
        raise InputError(f"there is no bottleneck {name!r}; the known ones are {', '.join(sorted(NAMES))}.")
    return NAMES[name](**arguments)


__all__ = ["NAMES", "Bottleneck", "SoftEM", "VectorQuantizer", "get"]
