"""Bottlenecks by name, their configuration, and what they refuse."""

import keras
import numpy as np
import pytest

from vq_keras.bottlenecks import NAMES, Bottleneck, SoftEM, VectorQuantizer, get
from vq_keras.bottlenecks.codebook import Codebook
from vq_keras.errors import InputError


def test_by_name():
    assert {"vector_quantizer": VectorQuantizer, "soft_em": SoftEM} == NAMES
    for name, kind in NAMES.items():
        bottleneck = get(name, num_codes=7, decay=0.5, name="layer")
        assert type(bottleneck) is kind
        assert isinstance(bottleneck, Bottleneck)
        assert (bottleneck.name, bottleneck.num_codes, bottleneck.codebook.decay) == ("layer", 7, 0.5)


def test_unknown_names():
    with pytest.raises(InputError, match="no bottleneck 'vq'; the known ones are soft_em, vector_quantizer"):
        get("vq", num_codes=7)


@pytest.mark.parametrize("kind", [VectorQuantizer, SoftEM])
@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_codes": 1}, "num_codes is 1"),
        ({"num_codebooks": 0}, "num_codebooks is 0"),
        ({"update": "adam"}, 'update is \'adam\'; give "ema" or "gradient"'),
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
        VectorQuantizer(5, 2, "gradient", 0.5, 1e-3, "normal", 0.2, 0.3, 0.4, 9),
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
