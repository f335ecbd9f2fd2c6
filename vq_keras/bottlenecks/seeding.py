"""Which latents of a batch codes start on.

Pure functions over `latents` float32 (n, num_codebooks, dim) and `weights` float32 (n,), 1 for latents that count and 0
for masked ones, which are never chosen. Where nothing counts the result is zeros.
"""

from keras import ops

from vq_keras.bottlenecks import assignment

KMEANS_ITERATIONS = 10
# Weight of a latent without error: enough to choose by where all are such, and nothing beside any other.
TINY = 1e-30


def spread(latents, weights, uniforms):
    """A latent for each code, all with the same probability.

    Stratified: code k gets one of the k-th of K equal parts of the batch. So no latent serves two codes where there
    are enough of them, and where there are fewer latents than codes they repeat.

    Args:
        uniforms: float32 (num_codebooks, num_codes) in [0, 1).

    Returns:
        float32 (num_codebooks, num_codes, dim).
    """
    num_codes = uniforms.shape[1]
    number = ops.sum(weights)
    bounds = ops.floor(ops.arange(num_codes + 1, dtype="float32") * (number / num_codes))
    widths = ops.maximum(bounds[1:] - bounds[:-1], 1.0)
    ranks = bounds[:-1] + ops.floor(uniforms * widths)
    return _at(latents, ops.broadcast_to(weights[:, None], ops.shape(latents)[:2]), ranks)


def far(latents, weights, errors, places, uniforms):
    """A latent for each code in need of one, with a probability in proportion to its error.

    As k-means++ chooses its centres (Arthur and Vassilvitskii 2007, section 2.2). Latents far from all codes are
    where codes are missing: a cluster that is a thousand times rarer than another is found by its error long before
    it is found by chance. Stratified over the codes in need.

    Args:
        errors: float32 (n, num_codebooks), the squared distance of each latent to what it was quantised to.
        places: bool (num_codebooks, num_codes), which codes need one.
        uniforms: float32 (num_codebooks, num_codes) in [0, 1).

    Returns:
        float32 (num_codebooks, num_codes, dim); of no meaning where `places` is false.
    """
    weights = weights[:, None] * (errors + TINY)
    in_need = ops.cast(places, "float32")
    strata = (ops.cumsum(in_need, axis=1) - in_need + uniforms) / ops.maximum(
        ops.sum(in_need, axis=1, keepdims=True), 1.0
    )
    # Short of the total by more than the running total has rounded: what follows the last one that counts is masked.
    ranks = ops.minimum(strata, 1.0 - 1e-4) * ops.sum(weights, axis=0)[:, None]
    return _at(latents, weights, ranks)


def kmeans(latents, weights, start, statistics):
    """Lloyd's algorithm.

    Args:
        start: float32 (num_codebooks, num_codes, dim), the centres to begin with.
        statistics: function (latents, codes, weights) -> numbers and sums of the latents of each code.

    Returns:
        centres like `start`, and cluster sizes (num_codebooks, num_codes), at least 1.
    """

    def step(_, state):
        centres, counts = state
        counts, sums = statistics(latents, assignment.nearest(latents, centres), weights)
        return ops.where((counts > 0)[..., None], sums / ops.maximum(counts, 1.0)[..., None], centres), counts

    centres, counts = ops.fori_loop(0, KMEANS_ITERATIONS, step, (start, ops.ones(start.shape[:2])))
    return centres, ops.maximum(counts, 1.0)


def _at(latents, weights, ranks):
    """The latents at which the running total of `weights` (n, num_codebooks) passes `ranks`, one for each code."""
    totals = ops.cumsum(weights, axis=0)
    vectors = []
    for book in range(latents.shape[1]):
        positions = ops.searchsorted(totals[:, book], ranks[book], side="right")
        # A row of zeros at the end, where the search ends if nothing counts.
        table = ops.pad(latents[:, book], [[0, 1], [0, 0]])
        vectors.append(ops.take(table, ops.cast(positions, "int32"), axis=0))
    return ops.stack(vectors)
