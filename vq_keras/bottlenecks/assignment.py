"""Which codes belong to which latents: nearest, or drawn in proportion to exp(-distance).

Pure functions over `latents` (n, num_codebooks, dim) and `embeddings` (num_codebooks, num_codes, dim), in float32,
through which no gradient flows. No tensor of n x num_codes elements exists: the distances are computed for some rows
at a time.
"""

from keras import ops

from vq_keras import inverse_cdf

# Distances held at a time, 16 MB of float32: large enough for the matrix products to run at full speed, small
# enough to stay near the cache and to be lost beside the latents themselves.
MAX_DISTANCES = 2**22


def nearest(latents, embeddings):
    """The nearest code of each latent (oord2017 equation 1); the lowest id among equally near ones.

    Args:
        latents: float32 (n, num_codebooks, dim).
        embeddings: float32 (num_codebooks, num_codes, dim).

    Returns:
        int32 (n, num_codebooks, 1).
    """
    latents, negative_distances = _prepared(latents, embeddings)

    def rows(x):
        return _best(negative_distances(x))[1]

    return _by_chunks(rows, [latents], embeddings)


def drawn(latents, embeddings, uniforms, temperature):
    """Codes drawn with replacement with p(k) proportional to exp(-|x - e_k|^2 / temperature), and the nearest ones.

    The E step of Monte-Carlo EM (roy2018 section 3.2), where the temperature is 1.

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

    both = _by_chunks(rows, [latents, uniforms], embeddings)
    return both[..., 1:], both[..., :1]


def _prepared(latents, embeddings):
    """The latents, and a function that gives -|x - e|^2 for some of them, up to a number for each latent.

    |x|^2 is left out: neither the largest over the codes nor a softmax over them depends on it. Latents and codes
    are both centred on the codebook's mean first, because the expansion -|x|^2 + 2 x.e - |e|^2 cancels where the data
    lie far from the origin: at an offset of 50 standard deviations more than one in a hundred assignments is wrong
    without.
    """
    latents, embeddings = ops.stop_gradient(latents), ops.stop_gradient(embeddings)
    centre = ops.mean(embeddings, axis=1)
    embeddings = embeddings - centre[:, None]
    squares = ops.sum(ops.square(embeddings), axis=-1)
    if embeddings.shape[0] == 1:
        table = ops.transpose(2.0 * embeddings[0])
        return latents - centre, lambda x: ops.matmul(x[:, 0], table)[:, None] - squares
    return latents - centre, lambda x: ops.einsum("ngd,gkd->ngk", x, 2.0 * embeddings) - squares


def _best(scores):
    # Not argmax: Keras mends the sign of zeros first, which takes five times as long as the search itself.
    best, codes = ops.top_k(scores, 1)
    return best, ops.cast(codes, "int32")


def _by_chunks(function, tensors, embeddings):
    """function(*tensors), computed for as many rows at a time as MAX_DISTANCES allows."""
    num_codebooks, num_codes, _ = embeddings.shape
    limit = max(1, MAX_DISTANCES // (num_codebooks * num_codes))
    if tensors[0].shape[0] is not None and tensors[0].shape[0] <= limit:
        return function(*tensors)

    num_rows = ops.shape(tensors[0])[0]
    num_chunks = 1 + num_rows // limit
    size = (num_rows + num_chunks - 1) // num_chunks  # Equal chunks: hardly a row of filler.
    chunks = []
    for tensor in tensors:
        filler = ops.zeros((num_chunks * size - num_rows, *tensor.shape[1:]), tensor.dtype)
        filled = ops.concatenate([tensor, filler], axis=0)
        chunks.append(ops.reshape(filled, (num_chunks, size, *tensor.shape[1:])))
    results = ops.map(lambda chunk: function(*chunk), chunks)
    return ops.reshape(results, (-1, *results.shape[2:]))[:num_rows]
