"""Every bottleneck under a name, so that configurations and command lines can choose by a string."""

from vq_keras.bottlenecks.categorical_samples import CategoricalSamples
from vq_keras.bottlenecks.finite_scalar import FiniteScalarQuantizer
from vq_keras.bottlenecks.gaussian import Gaussian
from vq_keras.bottlenecks.gaussian_samples import GaussianSamples
from vq_keras.bottlenecks.grouped import GroupedQuantizer
from vq_keras.bottlenecks.gumbel_softmax import GumbelSoftmax
from vq_keras.bottlenecks.lookup_free import LookupFreeQuantizer
from vq_keras.bottlenecks.product import ProductQuantizer
from vq_keras.bottlenecks.random_projection import RandomProjectionQuantizer
from vq_keras.bottlenecks.residual import ResidualQuantizer
from vq_keras.bottlenecks.residual_finite_scalar import ResidualFiniteScalarQuantizer
from vq_keras.bottlenecks.semantic_hashing import SemanticHashing
from vq_keras.bottlenecks.soft_em import SoftEM
from vq_keras.bottlenecks.vector_quantizer import VectorQuantizer
from vq_keras.errors import InputError


def _cosine(num_codes, **arguments):
    return VectorQuantizer(num_codes, cosine=True, **arguments)


def _sim_vq(num_codes, **arguments):
    return VectorQuantizer(num_codes, update="linear", **arguments)


def _binary_spherical(num_codes, **arguments):
    return LookupFreeQuantizer(num_codes, spherical=True, **arguments)


def _finite_scalar(num_codes=None, **arguments):
    return FiniteScalarQuantizer(num_codes=num_codes, **arguments)


def _product(num_codes, num_blocks=2, of="vector_quantizer", projection=False, seed=None, name=None, **arguments):
    of_block = round(num_codes ** (1 / num_blocks))
    if of_block**num_blocks != num_codes:
        raise InputError(
            f"{num_codes} codes cannot be the product of {num_blocks} equal codebooks; "
            f"{max(of_block, 2) ** num_blocks} can."
        )
    blocks = get(of, num_codes=of_block, num_codebooks=num_blocks, seed=seed, **arguments)
    return ProductQuantizer(blocks, projection=projection, seed=seed, name=name)


def _residual(num_codes, num_stages=2, of="vector_quantizer", dropout=0.0, seed=None, name=None, **arguments):
    # Stages with one seed would take the same rows of a batch to begin with.
    seeds = [None if seed is None else seed + stage for stage in range(num_stages)]
    stages = [get(of, num_codes=num_codes, seed=seed, **arguments) for seed in seeds]
    return ResidualQuantizer(stages, dropout=dropout, seed=seed, name=name)


def _grouped_residual(num_codes, num_groups=2, seed=None, name=None, **arguments):
    seeds = [None if seed is None else seed + 1000 * group for group in range(num_groups)]
    return GroupedQuantizer([_residual(num_codes, seed=seed, **arguments) for seed in seeds], name=name)


NAMES = {
    "vector_quantizer": VectorQuantizer,
    "soft_em": SoftEM,
    "gumbel_softmax": GumbelSoftmax,
    "semantic_hashing": SemanticHashing,
    "product": _product,
    "residual": _residual,
    "grouped_residual": _grouped_residual,
    "finite_scalar": _finite_scalar,
    "residual_finite_scalar": ResidualFiniteScalarQuantizer,
    "lookup_free": LookupFreeQuantizer,
    "binary_spherical": _binary_spherical,
    "sim_vq": _sim_vq,
    "cosine": _cosine,
    "random_projection": RandomProjectionQuantizer,
    "gaussian": Gaussian,
    "categorical_samples": CategoricalSamples,
    "gaussian_samples": GaussianSamples,
}
# Those without codes: they take no num_codes, and no latent predictor goes with them.
CONTINUOUS = tuple(name for name, kind in NAMES.items() if not getattr(kind, "has_codes", True))


def get(name, /, **arguments):
    """A bottleneck by name.

    Args:
        name: a key of `NAMES`. Those that are made of others take, beside `num_codes` and what the others take,
            "product": `num_blocks` and `projection`; "residual" and "residual_finite_scalar": `num_stages` and
            `dropout`; "grouped_residual": those and `num_groups`; and all but "residual_finite_scalar" take `of`, the
            name of the bottleneck they are made of.
        **arguments: of that bottleneck's constructor, `name` of the layer among them.

    Returns:
        A `Bottleneck`, or for a name of `CONTINUOUS` another `LatentLayer`.

    Raises:
        InputError: for an unknown name; the message lists the known ones.

    Example:
        >>> get("soft_em", num_codes=256, num_samples=5).num_samples
        5
        >>> get("residual", num_codes=64, num_stages=4).code_shape((8, 8))
        (8, 8, 4)
    """
    if name not in NAMES:
        raise InputError(f"there is no bottleneck {name!r}; the known ones are {', '.join(sorted(NAMES))}.")
    return NAMES[name](**arguments)
