"""Every bottleneck's `encode` and `decode` in a SavedModel that TF Serving would run."""

import keras
import numpy as np
import pytest
from harness import BACKEND, array

from vq_keras import saved_model
from vq_keras.bottlenecks import CONTINUOUS, get
from vq_keras.bottlenecks import NAMES as KNOWN

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow writes SavedModels"),
]
NAMES = [name for name in KNOWN if name not in CONTINUOUS]
POSITIONS, DIM = 6, 8


def latents(batch, dim, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, POSITIONS, dim)).astype("float32")


def trained(name):
    """A bottleneck after a step of training, so that its codes lie where data are."""
    layer = get(name, num_codes=256)
    dim = getattr(layer, "latent_dim", DIM)
    layer(latents(64, dim, seed=2), training=True)
    return layer, dim


def signatures(layer, dim):
    return {
        "encode": saved_model.Signature(
            lambda latents: {"codes": layer.encode(latents)}, {"latents": ((None, POSITIONS, dim), "float32")}
        ),
        "decode": saved_model.Signature(
            lambda codes: {"quantized": layer.decode(codes)},
            {"codes": ((None, *layer.code_shape((POSITIONS,))), "int32")},
        ),
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Layers and their latents' dimensions by name, and one SavedModel of all of them; `write` checks it."""
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    layers = {name: trained(name) for name in NAMES}
    every = {f"{name}-{key}": each for name in NAMES for key, each in signatures(*layers[name]).items()}
    version = saved_model.write(tmp_path_factory.mktemp("bottlenecks"), every)
    return layers, tf.saved_model.load(str(version))


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("name", NAMES)
def test_the_reloaded_functions_equal_the_layers(name, batch, exported):
    layers, loaded = exported
    layer, dim = layers[name]
    values = latents(batch, dim)
    codes = array(layer.encode(values))
    assert len(np.unique(codes)) > 1
    np.testing.assert_array_equal(loaded.signatures[f"{name}-encode"](latents=values)["codes"], codes)
    quantized = loaded.signatures[f"{name}-decode"](codes=codes)["quantized"]
    assert quantized.shape == values.shape
    # Matrix products of compiled graphs may be added up in another order.
    np.testing.assert_allclose(quantized, layer.decode(codes), rtol=1e-5, atol=1e-6)


def test_no_latent_and_no_code(exported):
    """What is no number gets no code, and no code the vector zero, in the server too."""
    layers, loaded = exported
    for name, (_, dim) in layers.items():
        values = latents(2, dim)
        values[0, 1] = np.nan
        codes = array(loaded.signatures[f"{name}-encode"](latents=values)["codes"])
        assert (codes[0, 1] == -1).all() and (np.delete(codes.reshape(12, -1), 1, axis=0) >= 0).all(), name
        quantized = array(loaded.signatures[f"{name}-decode"](codes=codes)["quantized"])
        assert (quantized[0, 1] == 0).all() and np.isfinite(quantized).all(), name
