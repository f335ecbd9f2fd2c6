"""Bottlenecks by name, their configuration, and what they refuse."""

import keras
import numpy as np
import pytest

from vq_keras.bottlenecks import (
    CONTINUOUS,
    NAMES,
    Bottleneck,
    CategoricalSamples,
    FiniteScalarQuantizer,
    Gaussian,
    GaussianSamples,
    GroupedQuantizer,
    GumbelSoftmax,
    LookupFreeQuantizer,
    ProductQuantizer,
    RandomProjectionQuantizer,
    ResidualFiniteScalarQuantizer,
    ResidualQuantizer,
    SemanticHashing,
    SoftEM,
    VectorQuantizer,
    get,
)
from vq_keras.bottlenecks.codebook import Codebook
from vq_keras.errors import InputError

KINDS = {
    "vector_quantizer": VectorQuantizer,
    "soft_em": SoftEM,
    "gumbel_softmax": GumbelSoftmax,
    "semantic_hashing": SemanticHashing,
    "product": ProductQuantizer,
    "residual": ResidualQuantizer,
    "grouped_residual": GroupedQuantizer,
    "finite_scalar": FiniteScalarQuantizer,
    "residual_finite_scalar": ResidualFiniteScalarQuantizer,
    "lookup_free": LookupFreeQuantizer,
    "binary_spherical": LookupFreeQuantizer,
    "sim_vq": VectorQuantizer,
    "cosine": VectorQuantizer,
    "random_projection": RandomProjectionQuantizer,
    "categorical_samples": CategoricalSamples,
}


def test_by_name():
    assert set(NAMES) == set(KINDS) | set(CONTINUOUS)
    for name, kind in KINDS.items():
        bottleneck = get(name, num_codes=256, name="layer")
        assert type(bottleneck) is kind
        assert isinstance(bottleneck, Bottleneck)
        assert (bottleneck.name, bottleneck.num_codes) == ("layer", 240 if "finite_scalar" in name else 256)


def test_continuous_ones_by_name():
    assert CONTINUOUS == ("gaussian", "gaussian_samples")
    for name, kind in zip(CONTINUOUS, (Gaussian, GaussianSamples), strict=True):
        bottleneck = get(name, name="layer", seed=3)
        assert type(bottleneck) is kind
        assert (bottleneck.name, bottleneck.seed) == ("layer", 3)
        with pytest.raises(ValueError, match="num_codes"):
            get(name, num_codes=256)


def test_by_name_with_arguments():
    assert get("categorical_samples", num_codes=7, num_samples=4).num_samples == 4
    assert get("gaussian_samples").num_samples == 50
    assert get("soft_em", num_codes=7, decay=0.5).codebook.decay == 0.5
    assert get("sim_vq", num_codes=7).codebook.update == "linear"
    assert get("cosine", num_codes=7).codebook.cosine
    assert get("binary_spherical", num_codes=8).spherical
    assert not get("lookup_free", num_codes=8).spherical
    assert get("finite_scalar", levels=(3, 4)).num_codes == 12
    product = get("product", num_codes=64, num_blocks=3, of="soft_em", num_samples=4)
    assert (product.bottleneck.num_codes, product.bottleneck.num_codebooks, product.bottleneck.num_samples) == (4, 3, 4)
    residual = get("residual", num_codes=8, num_stages=3, dropout=0.25, decay=0.7, seed=5)
    assert [stage.codebook.seed for stage in residual.stages] == [5, 6, 7]
    assert (residual.dropout, residual.stages[2].codebook.decay) == (0.25, 0.7)
    grouped = get("grouped_residual", num_codes=8, num_groups=2, num_stages=3)
    assert grouped.code_shape((4,)) == (4, 6)


def test_unknown_names():
    with pytest.raises(
        InputError, match=r"no bottleneck 'vq'; the known ones are .*residual, residual_finite_scalar, sem"
    ):
        get("vq", num_codes=7)


@pytest.mark.parametrize("kind", [VectorQuantizer, SoftEM])
@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_codes": 1}, "num_codes is 1"),
        ({"num_codebooks": 0}, "num_codebooks is 0"),
        ({"update": "adam"}, "update is 'adam'; give one of ema, gradient, linear"),
        ({"decay": 1.0}, r"decay is 1.0; give a number in \[0, 1\)"),
        ({"decay": -0.1}, "decay is -0.1"),
        ({"decay": float("nan")}, "decay is nan"),
        ({"epsilon": -1e-5}, "epsilon is -1e-05"),
        ({"initializer": "uniform"}, "initializer is 'uniform'; give one of samples, kmeans, normal"),
        ({"restart_threshold": 1.0}, "restart_threshold is 1.0"),
        ({"restart_threshold": -1}, "restart_threshold is -1"),
        ({"commitment_weight": -1}, "commitment_weight is -1"),
        ({"codebook_weight": -1}, "codebook_weight is -1"),
    ],
)
def test_arguments_outside_their_range(kind, arguments, message):
    with pytest.raises(InputError, match=message):
        kind(**{"num_codes": 8, **arguments})


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_samples": 0}, "num_samples is 0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"eval_mode": "mean"}, 'eval_mode is \'mean\'; give "argmin" or "sample"'),
        ({"update": "gradient"}, "soft EM moves its codebook in the M step"),
    ],
)
def test_arguments_of_soft_em_outside_their_range(arguments, message):
    with pytest.raises(InputError, match=message):
        SoftEM(8, **arguments)


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4), (12,)])
def test_embeddings_that_do_not_fit(shape):
    codebook = Codebook(3)
    codebook.build((None, 1, 4))
    with pytest.raises(InputError, match="do not fit"):
        codebook.set(np.zeros(shape))


@pytest.mark.parametrize(
    "bottleneck",
    [
        VectorQuantizer(
            num_codes=5,
            num_codebooks=2,
            update="gradient",
            decay=0.5,
            epsilon=1e-3,
            initializer="normal",
            restart_threshold=0.2,
            cosine=True,
            rotation=True,
            commitment_weight=0.3,
            codebook_weight=0.4,
            orthogonal_weight=0.5,
            seed=9,
        ),
        SoftEM(5, 3, 2.0, "sample", 9, num_codebooks=2, decay=0.5, commitment_weight=0.7),
    ],
    ids=["vector_quantizer", "soft_em"],
)
def test_the_configuration_makes_the_same_bottleneck(bottleneck):
    config = bottleneck.get_config()
    again = type(bottleneck).from_config(config)
    assert again.get_config() == config
    assert again.codebook.arguments() == bottleneck.codebook.arguments()
    serialised = keras.layers.serialize(bottleneck)
    assert keras.layers.deserialize(serialised).get_config() == config


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="takes JAX a minute outside jit")
def test_the_examples_of_the_docstrings():
    latents = keras.random.normal((2, 8, 8, 64))
    outputs = VectorQuantizer(num_codes=512)(latents, training=True)
    assert (outputs["codes"].shape, outputs["quantized"].shape) == ((2, 8, 8), (2, 8, 8, 64))
    assert SoftEM(num_codes=256, num_samples=10)(latents, training=True)["samples"].shape == (2, 8, 8, 10)
    assert get("soft_em", num_codes=256, num_samples=5).num_samples == 5


@pytest.mark.parametrize("wrong", [-2, 64])
@pytest.mark.parametrize(  # Scalar quantisers have no 64 codes, and continuous bottlenecks none.
    "name", [name for name in NAMES if name not in ("finite_scalar", "residual_finite_scalar", *CONTINUOUS)]
)
def test_codes_that_do_not_exist(name, wrong):
    layer = get(name, num_codes=64)
    layer.build((None, 3, getattr(layer, "latent_dim", None) or 4))
    codes = np.zeros((2, *layer.code_shape((3,))), "int32")
    codes.flat[1] = wrong
    with pytest.raises(InputError, match=f"there is no code {wrong}: codes are 0 to"):
        layer.decode(codes)
