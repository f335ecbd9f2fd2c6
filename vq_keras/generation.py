"""The loops that generate codes from any model that predicts them one after the other."""

import numbers
from collections.abc import Callable

from keras import ops

from vq_keras import inverse_cdf
from vq_keras.errors import InputError

# The largest float32 below one. A number that rounds to one would stand above the cumulative sum of every code.
LARGEST_UNIFORM = 1.0 - 2.0**-24
NEVER = float("-inf")


def sample(step: Callable, cache, length: int, uniforms, temperature: float = 1.0, top_k: int | None = None):
    """Draws sequences of codes, each code from softmax(logits / temperature) given those before it.

    The loop is `keras.ops.while_loop` over `step`, so that it runs eagerly and compiled (`tf.function`, `jax.jit`)
    and costs one step a code. All randomness is in `uniforms`: code t of a sequence is where the cumulative
    distribution passes `uniforms[:, t]`, so that a sequence depends on its own numbers alone, not on the batch in
    which it is drawn.

    Args:
        step: function (previous codes (batch,) int32, t, cache) -> (logits (batch, num_codes), cache) for t = 0, 1,
            ..., length - 1 in order. It is to ignore the previous codes at t = 0.
        cache: what the first step gets; a nest of tensors whose shapes no step changes.
        length: number of codes to draw for each sequence.
        uniforms: (batch, length), independent and uniform in [0, 1).
        temperature: a scalar for all sequences or a tensor (batch,), one for each. 0 (and any
            tensor element below) takes the most likely code, and
            of equally likely ones the one with the lowest id.
        top_k: if given, only so many most likely codes can be drawn. Codes that are exactly as likely as the k-th
            are all kept.

    Returns:
        codes (batch, length) int32. A code of probability zero is never drawn.

    Raises:
        InputError: temperature is a negative number, top_k is below 1, or `uniforms` has not `length` columns.

    Example:
        >>> logits = ops.log([[0.5, 0.25, 0.25]])
        >>> step = lambda previous, t, cache: (ops.repeat(logits, 2, axis=0), cache)
        >>> sample(step, (), 3, ops.convert_to_tensor([[0.1, 0.6, 0.9], [0.8, 0.4, 0.7]]))  # [[0, 1, 2], [2, 0, 1]]
    """
    if isinstance(temperature, numbers.Real) and not temperature >= 0:
        raise InputError(f"temperature is {temperature}; give 0 for the most likely code, or a positive number.")
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k is {top_k}; give at least 1, or None for all codes.")
    uniforms = ops.convert_to_tensor(uniforms, "float32")
    if uniforms.shape[1] not in (None, length):
        raise InputError(f"uniforms has {uniforms.shape[1]} columns for {length} codes; give one number for each code.")

    uniforms = ops.minimum(uniforms, LARGEST_UNIFORM)
    # A column, which a scalar becomes too, spreads over the codes of its row.
    temperature = ops.reshape(ops.cast(temperature, "float32"), (-1, 1))
    places = ops.arange(length, dtype="int32")

    def body(t, previous, codes, cache):
        logits, cache = step(previous, t, cache)
        chosen = _choose(ops.cast(logits, "float32"), ops.take(uniforms, t, axis=1), temperature, top_k)
        # where() and no slice update, which TF Serving refuses to run.
        return t + 1, chosen, ops.where(ops.equal(places, t), chosen[:, None], codes), cache

    codes = ops.zeros_like(uniforms, dtype="int32")
    start = (ops.zeros((), "int32"), codes[:, 0], codes, cache)
    return ops.while_loop(lambda t, *_: t < length, body, start, maximum_iterations=length)[2]


def _choose(logits, uniforms, temperature, top_k):
    """Codes (batch,) for logits (batch, num_codes) and uniforms (batch,)."""
    best = ops.max(logits, axis=-1, keepdims=True)
    if top_k is not None:
        kept, _ = ops.top_k(logits, min(top_k, logits.shape[-1]))
        logits = ops.where(logits >= kept[..., -1:], logits, NEVER)
    # At temperature 0 all but the most likely codes are excluded and the number 0 takes the first of them.
    sharp = temperature > 0
    scaled = (logits - best) / ops.where(sharp, temperature, 1.0)
    scaled = ops.where(ops.logical_or(sharp, logits >= best), scaled, NEVER)
    uniforms = ops.where(sharp, uniforms[:, None], 0.0)
    return inverse_cdf.draw(scaled, uniforms)[:, 0]
