"""Unit vectors, and the rotation from one direction to another."""

from keras import ops

# Shorter vectors count as zero: their direction is rounding error.
SHORTEST = 1e-12


def l2_normalize(vectors):
    """vectors / |vectors| over the last axis; zero, with gradient zero, for a vector of (nearly) no length."""
    squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    long_enough = squares > SHORTEST**2
    # The inner `where` keeps the root, whose slope at 0 is infinite, from the gradient; the outer one its value.
    return ops.where(long_enough, vectors * ops.rsqrt(ops.where(long_enough, squares, 1.0)), 0.0)


def rotate_through(latents, quantized):
    """`quantized` forward; backward the rotation and rescaling that takes each latent to it (Fifty et al. 2024).

    With x the latent, q its quantized vector and hats for unit vectors, q = c R x for the constants

        c = |q| / |x|,    R = I - 2 r r' + 2 q^ x^',    r = (x^ + q^) / |x^ + q^|,

    and the gradient of x is c R' g: it keeps the angle between gradient and code vector, which the straight-through
    gradient g does not. Where x or q is zero, or they point to opposite sides, R has no such form; the terms that are
    undefined are left out, and the gradient stays finite.

    Args:
        latents, quantized: float32 (..., dim).

    Returns:
        float32 (..., dim), to the last bit `quantized`.
    """
    target, quantized_unit, latents_unit = (
        ops.stop_gradient(each) for each in (quantized, l2_normalize(quantized), l2_normalize(latents))
    )
    middle = l2_normalize(latents_unit + quantized_unit)
    lengths = [
        ops.sqrt(ops.sum(ops.square(ops.stop_gradient(each)), axis=-1, keepdims=True)) for each in (target, latents)
    ]
    scale = ops.where(lengths[1] > SHORTEST, lengths[0] / ops.maximum(lengths[1], SHORTEST), 1.0)

    def dot(vectors):
        return ops.sum(vectors * latents, axis=-1, keepdims=True)

    rotated = scale * (latents - 2.0 * dot(middle) * middle + 2.0 * dot(latents_unit) * quantized_unit)
    return target + (rotated - ops.stop_gradient(rotated))
