"""Which codes belong to which latents, nearest or drawn in proportion to exp(-distance), and the vectors of codes.

Pure functions over `latents` (n, num_codebooks, dim) and `embeddings` (num_codebooks, num_codes, dim), in float32.
No tensor of n x num_codes elements exists: the distances are computed for some rows at a time.
"""

import keras
from keras import ops

from vq_keras import inverse_cdf

# Distances held at a time, 8 MB of float32: large enough for the matrix products to run at full speed, small
# enough to stay near the cache and to be lost beside the latents themselves.
MAX_DISTANCES = 2**21


def nearest(latents, embeddings):
    """The nearest code of each latent (oord2017 equation 1); the lowest id among equally near ones. No gradient.

    Args:
        latents: float32 (n, num_codebooks, dim).
        embeddings: float32 (num_codebooks, num_codes, dim).

    Returns:
        int32 (n, num_codebooks, 1).
    """
    latents, negative_distances = _prepared(latents, embeddings)

    def rows(x):
        return _best(negative_distances(x))[1]

    return by_chunks(rows, [latents], embeddings)


def drawn(latents, embeddings, uniforms, temperature):
    """Codes drawn with replacement with p(k) proportional to exp(-|x - e_k|^2 / temperature), and the nearest ones.

    The E step of Monte-Carlo EM (roy2018 section 3.2), where the temperature is 1. No gradient.

    Args:
        latents: float32 (n, num_codebooks, dim).
        embeddings: float32 (num_codebooks, num_codes, dim).
        uniforms: float32 (n, num_codebooks, m) in [0, 1): a number for each draw.
        temperature: number above zero.

    Returns:
        int32 (n, num_codebooks, m) and, as `nearest`, int32 (n, num_codebooks, 1).
    """
    latents, negative_distances = _prepared(latents, embeddings)

    def rows(x, u):
        logits = negative_distances(x)
        # The best goes first: divided by a small temperature, the others become -inf and not inf - inf.
        best, codes = _best(logits)
        weights = ops.exp((logits - best) / temperature)
        return ops.concatenate([codes, inverse_cdf.draw_weighted(weights, u)], axis=-1)

    both = by_chunks(rows, [latents, uniforms], embeddings)
    return both[..., 1:], both[..., :1]


def lookup(embeddings, samples):
    """The mean of the vectors of m codes.

    Args:
        embeddings: float32 (num_codebooks, num_codes, dim); they get the gradient.
        samples: int32 (n, num_codebooks, m) in [0, num_codes).

    Returns:
        float32 (n, num_codebooks, dim).
    """
    num_codebooks, num_codes, dim = embeddings.shape
    table = ops.reshape(embeddings, (-1, dim))
    of_codes = rows(samples, num_codebooks, num_codes)
    return mean_over_samples(lambda sample: ops.take(table, of_codes[..., sample], axis=0), samples.shape[-1])


def vectors(embeddings, samples):
    """The vector of each of m codes, one by one; zeros for -1.

    Args:
        embeddings: float32 (num_codebooks, num_codes, dim); they get the gradient.
        samples: int32 (n, num_codebooks, m).

    Returns:
        float32 (n, num_codebooks, m, dim).
    """
    num_codebooks, num_codes, dim = embeddings.shape
    found = ops.take(ops.reshape(embeddings, (-1, dim)), rows(samples, num_codebooks, num_codes), axis=0)
    return ops.where(samples[..., None] >= 0, found, 0.0)


def rows(samples, num_codebooks, num_codes):
    """Rows of a flattened (num_codebooks * num_codes, dim) table."""
    return samples + ops.arange(num_codebooks, dtype="int32")[:, None] * num_codes


def mean_over_samples(function, number):
    """The mean of function(0) .. function(number - 1), to the last bit their value where they are all equal."""
    first = function(0)
    if number == 1:
        return first
    return first + sum(function(index) - first for index in range(1, number)) / number


def _prepared(latents, embeddings):
    """The latents, and a function that gives -|x - e|^2 for some of them, up to a number for each latent.

    |x|^2 is left out: neither the largest over the codes nor a softmax over them depends on it. Latents and codes
    are both centred on the codebook's mean first, because the expansion -|x|^2 + 2 x.e - |e|^2 cancels where the data
    lie far from the origin: at an offset of 50 standard deviations more than one in a hundred assignments is wrong
    without. The rest is one matrix product, of [x, 1] and [2 e, -|e|^2]: to subtract |e|^2 afterwards takes about half
    as long again for short latents.
    """
    latents, embeddings = ops.stop_gradient(latents), ops.stop_gradient(embeddings)
    centre = ops.mean(embeddings, axis=1)
    latents, embeddings = latents - centre, embeddings - centre[:, None]
    latents = ops.concatenate([latents, ops.ones_like(latents[..., :1])], axis=-1)
    squares = ops.sum(ops.square(embeddings), axis=-1, keepdims=True)
    table = ops.concatenate([2.0 * embeddings, -squares], axis=-1)
    if table.shape[0] == 1:
        table = ops.transpose(table[0])
        return latents, lambda x: ops.matmul(x[:, 0], table)[:, None]
    return latents, lambda x: ops.einsum("ngd,gkd->ngk", x, table)


def _best(scores):
    """The largest score over the codes and its id, with a last axis of 1."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Keras's argmax mends the sign of zeros first, which takes five times as long as the search itself, and its max
        # refuses an empty batch; top_k of 1 takes twice as long.
        best = tf.reduce_max(scores, axis=-1, keepdims=True)
        return best, tf.argmax(scores, axis=-1, output_type=tf.int32)[..., None]
    best, codes = ops.top_k(scores, 1)
    return best, ops.cast(codes, "int32")


def by_chunks(function, tensors, embeddings):
    """function(*tensors), computed for as many rows at a time as MAX_DISTANCES allows."""
    num_codebooks, num_codes, _ = embeddings.shape
    limit = max(1, MAX_DISTANCES // (num_codebooks * num_codes))
    num_rows = ops.shape(tensors[0])[0]
    if isinstance(num_rows, int) and num_rows <= limit:
        return function(*tensors)
    if type(num_rows).__module__.startswith("jax"):
        # A symbolic size: Keras asks a layer around this one for its shapes alone, and nothing is computed.
        return function(*tensors)

    num_chunks = 1 + num_rows // limit
    size = (num_rows + num_chunks - 1) // num_chunks  # Equal chunks: hardly a row of filler.
    chunks = []
    for tensor in tensors:
        filler = ops.zeros((num_chunks * size - num_rows, *tensor.shape[1:]), tensor.dtype)
        filled = ops.concatenate([tensor, filler], axis=0)
        chunks.append(ops.reshape(filled, (num_chunks, size, *tensor.shape[1:])))
    results = ops.map(lambda chunk: function(*chunk), chunks)
    return ops.reshape(results, (-1, *results.shape[2:]))[:num_rows]
