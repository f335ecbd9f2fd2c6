"""A bottleneck from the options of a recipe's command line."""

import json
from collections.abc import Mapping

from vq_keras.errors import InputError

# Which of a recipe's options mean something for which bottleneck, beside num_codes and num_codebooks.
OWN_OPTIONS = {
    "vector_quantizer": ("update", "decay", "commitment_weight", "seed"),
    "soft_em": ("num_samples", "temperature", "decay", "commitment_weight", "seed"),
    **dict.fromkeys(("gumbel_softmax", "semantic_hashing", "product", "residual", "grouped_residual"), ("seed",)),
    **dict.fromkeys(("residual_finite_scalar", "sim_vq", "cosine", "random_projection", "gaussian"), ("seed",)),
    **dict.fromkeys(("categorical_samples", "gaussian_samples"), ("num_samples", "seed")),
}


def make_bottleneck(name: str, options: Mapping, more: str, steps: int, latent_dim: int):
    """The bottleneck of that name; with learned maps around it where it fixes another number of dimensions.

    Args:
        name: as `bottlenecks.get` knows it.
        options: values by name; each bottleneck takes its own, "num_codes" if it has codes, and "num_codebooks".
        more: further arguments as JSON, which go before those of `options`.
        steps: training steps of the run, over which a Gumbel-softmax cools down.
        latent_dim: of the latents it gets.

    Raises:
        InputError: an unknown name, no JSON, or arguments that the bottleneck does not take.

    Example:
        >>> make_bottleneck("soft_em", {"num_codes": 64, "num_samples": 5}, "{}", steps=1000, latent_dim=32).num_codes
        64
    """
    import keras

    from vq_keras import bottlenecks

    try:
        more = dict(json.loads(more))
    except (ValueError, TypeError):
        raise InputError(f"--bottleneck-arguments is {more!r}, which is no JSON object.") from None
    own = ("num_codebooks", *OWN_OPTIONS.get(name, ()), *(() if name in bottlenecks.CONTINUOUS else ("num_codes",)))
    arguments = {option: options[option] for option in own if option in options}
    if name == "gumbel_softmax":
        # Its own default cools down in 5,000 steps, whatever the length of the run.
        arguments["temperature"] = keras.optimizers.schedules.PolynomialDecay(1.2, steps, 0.2)
    try:
        bottleneck = bottlenecks.get(name, **arguments | more)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} does not take {arguments | more}: {error}") from None
    fits = getattr(bottleneck, "latent_dim", None) in (None, latent_dim)
    return bottleneck if fits else bottlenecks.Projected(bottleneck)
