"""Sequences of codes drawn one code after the other, or made of the most likely code each time."""

import numbers
from collections.abc import Callable

from keras import ops

from vq_keras import inverse_cdf
from vq_keras.errors import InputError
from vq_keras.generation.logits import NEVER, largest, log_normalizer
from vq_keras.generation.stages import loop

# The largest float32 below one. A number that rounds to one would stand above the cumulative sum of every code.
LARGEST_UNIFORM = 1.0 - 2.0**-24


def sample(
    step: Callable,
    cache,
    length: int,
    uniforms,
    temperature: float = 1.0,
    top_k: int | None = None,
    start=0,
    end: int | None = None,
    lengths=None,
):
    """Draws sequences of codes, each code from softmax(logits / temperature) given those before it.

    The loop is `keras.ops.while_loop` over `step`, so that it runs eagerly and compiled (`tf.function`, `jax.jit`)
    and costs one step a code. All randomness is in `uniforms`: code t of a sequence is where the cumulative
    distribution passes `uniforms[:, t]`, so that a sequence depends on its own numbers alone, not on the batch in
    which it is drawn.

    Args:
        step: function (previous codes (batch,) int32, t, cache) -> (logits (batch, num_codes), cache) for t = 0, 1,
            ..., length - 1 in order.
        cache: what the first step gets; a nest of tensors whose shapes no step changes.
        length: number of codes to draw for each sequence.
        uniforms: (batch, length), independent and uniform in [0, 1).
        temperature: a scalar for all sequences or a tensor (batch,), one for each. 0 (and any tensor element below)
            takes the most likely code, and of equally likely ones the one with the lowest id; where that is wanted of
            all sequences, `greedy` is quicker.
        top_k: if given, only so many most likely codes can be drawn. Codes that are exactly as likely as the k-th
            are all kept.
        start: what the first step gets as previous codes: an id for all sequences, or (batch,).
        end: if given, the id that ends a sequence; the loop stops when all have ended.
        lengths: (batch,) of at most `length`, if sequences are to stop at numbers of codes of their own.

    Returns:
        codes (batch, length) int32, 0 where a sequence is over, and the log probability (batch,) of each sequence
        under the model in nats: of its codes with its `end`, whatever temperature and top_k. A code of probability
        zero is never drawn.

    Raises:
        InputError: temperature is a negative number, top_k is below 1, or `uniforms` has not `length` columns.

    Example:
        >>> logits = ops.log([[0.5, 0.25, 0.25]])
        >>> step = lambda previous, t, cache: (ops.repeat(logits, 2, axis=0), cache)
        >>> uniforms = ops.convert_to_tensor([[0.1, 0.6, 0.9], [0.8, 0.4, 0.7]])
        >>> codes, log_probs = sample(step, (), 3, uniforms)  # [[0, 1, 2], [2, 0, 1]], both log(1 / 32)
        >>> codes, log_probs = sample(step, (), 3, uniforms, end=2)  # [[0, 1, 2], [2, 0, 0]]
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

    def choose(logits, t):
        return _draw(logits, ops.take(uniforms, t, axis=1), temperature, top_k)

    return _loop(step, cache, length, choose, ops.broadcast_to(start, ops.shape(uniforms)[:1]), end, lengths)


def greedy(
    step: Callable, cache, length: int, start, end: int | None = None, lengths=None, grow: Callable | None = None
):
    """Sequences of the most likely code each time; of equally likely ones the one with the lowest id.

    Args:
        step, cache, length, end, lengths: as for `sample`.
        start: (batch,) int32, what the first step gets as previous codes.
        grow: function (cache, number of codes) -> cache with room for so many, where `cache` has less than `length`.

    Returns:
        codes (batch, length) int32, 0 where a sequence is over, and the log probability (batch,) of each sequence.

    Example:
        >>> chain = ops.log([[0.0, 0.1, 0.9], [0.0, 0.9, 0.1], [0.0, 0.7, 0.3]])
        >>> step = lambda previous, t, cache: (ops.take(chain, previous, axis=0), cache)
        >>> greedy(step, (), 4, start=ops.zeros((1,), "int32"), end=1)  # [[2, 1, 0, 0]] and [log(0.63)]
    """

    def choose(logits, t):
        best, chosen = ops.top_k(logits, 1)
        return chosen[:, 0], (best - log_normalizer(logits, best))[:, 0]

    return _loop(step, cache, length, choose, start, end, lengths, grow)


def _loop(step, cache, length, choose, start, end, lengths, grow=None):
    """`choose` gives, for float32 logits (batch, num_codes) and t, the next codes and their log probabilities."""
    start = ops.cast(start, "int32")
    places = ops.arange(length, dtype="int32")
    lengths = ops.cast(length if lengths is None else lengths, "int32")

    def body(t, going, previous, codes, log_probs, cache):
        logits, cache = step(previous, t, cache)
        chosen, gained = choose(ops.cast(logits, "float32"), t)
        chosen = ops.where(going, ops.cast(chosen, "int32"), 0)
        log_probs = ops.where(going, log_probs + gained, log_probs)
        # where() and no slice update, which TF Serving refuses to run.
        codes = ops.where(ops.equal(places, t), chosen[:, None], codes)
        going = ops.logical_and(going, t + 1 < lengths)
        if end is not None:
            going = ops.logical_and(going, ops.not_equal(chosen, end))
        return t + 1, going, chosen, codes, log_probs, cache

    nothing = ops.zeros_like(start)
    codes = ops.zeros((ops.shape(start)[0], length), "int32")
    state = (ops.zeros((), "int32"), nothing < lengths, start, codes, ops.cast(nothing, "float32"), cache)
    _, _, _, codes, log_probs, _ = loop(lambda t, going, *_: ops.any(going), body, state, length, grow)
    return codes, log_probs


def _draw(logits, uniforms, temperature, top_k):
    """Codes (batch,) for logits (batch, num_codes) and uniforms (batch,), and their log probabilities (batch,)."""
    best = ops.max(logits, axis=-1, keepdims=True)
    scaled = logits
    if top_k is not None:
        kept, _ = largest(logits, min(top_k, logits.shape[-1]))
        scaled = ops.where(logits >= kept[:, -1:], logits, NEVER)
    # At temperature 0 all but the most likely codes are excluded and the number 0 takes the first of them.
    sharp = temperature > 0
    scaled = (scaled - best) / ops.where(sharp, temperature, 1.0)
    scaled = ops.where(ops.logical_or(sharp, logits >= best), scaled, NEVER)
    uniforms = ops.where(sharp, uniforms[:, None], 0.0)
    drawn = inverse_cdf.draw(scaled, uniforms)
    log_probs = ops.take_along_axis(logits, drawn, axis=-1) - log_normalizer(logits, best)
    return drawn[:, 0], log_probs[:, 0]
