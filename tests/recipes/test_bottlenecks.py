"""Every bottleneck by name in the image recipe: a short training in which the loss falls and codes are used."""

import json
import math

import keras
import numpy as np
import pytest

from recipes import train_cifar
from vq_keras import bottlenecks
from vq_keras.errors import InputError
from vq_keras.training import image
from vq_keras.training.image_config import ImageConfig, resolve

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="half a minute of compilation each"),
]


def config_of(name, **options):
    options = {"architecture": "small", "num_codes": 256, "likelihood": "mse", "predictor": "none", **options}
    return resolve(ImageConfig(bottleneck=name, **options))


def blobs(number=64):
    """Smooth pictures of 8 x 8: there is something to learn in a few steps."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:8, :8] / 8
    waves = np.cos(2 * np.pi * (rng.random((number, 3, 1, 1)) + rng.random((number, 3, 1, 1)) * x + y))
    return (127 + 120 * waves).astype("uint8").transpose(0, 2, 3, 1)


@pytest.mark.parametrize("name", bottlenecks.NAMES)
def test_each_trains(name):
    config = config_of(name, num_samples=5)
    keras.utils.set_random_seed(0)
    bottleneck = image.make_bottleneck(config)
    model = image.make_model(config, (8, 8, 3), bottleneck)
    model.compile(keras.optimizers.Adam(2e-3))
    images = blobs()
    history = model.fit({"images": images}, batch_size=16, epochs=15, verbose=0).history
    assert history["nll_x"][-1] < 0.8 * history["nll_x"][0]
    if not bottleneck.has_codes:
        means = model.encode(images[:4])
        assert means.shape == (4, *model.code_shape, 8)
        assert model.decode(means).shape == (4, 8, 8, 3)
        return
    assert history["codes_in_use"][-1] >= 0.1 * bottleneck.num_codes * bottleneck.num_codebooks
    codes = keras.ops.convert_to_numpy(model.encode(images[:4]))
    assert codes.shape == (4, *model.code_shape)
    assert codes.min() >= 0
    assert codes.max() < bottleneck.num_codes
    assert model.decode(codes).shape == (4, 8, 8, 3)


def test_gumbel_softmax_cools_down_within_the_run():
    bottleneck = image.make_bottleneck(config_of("gumbel_softmax", steps=400))
    temperatures = [float(bottleneck.temperature(step)) for step in (0, 200, 400)]
    np.testing.assert_allclose(temperatures, [1.2, 0.7, 0.2], rtol=1e-6)


def test_a_residual_run_with_its_predictor(tmp_path):
    path = tmp_path / "images.npz"
    np.savez(path, train=blobs(), test=blobs(8))
    command = ["--dataset", "npz", "--data-dir", str(path), "--run-dir", str(tmp_path / "run"), "--steps", "3"]
    command += ["--bottleneck", "residual", "--num-codes", "16", "--bottleneck-arguments", '{"num_stages": 3}']
    command += ["--batch-size", "8", "--predictor-layers", "1", "--predictor-dim", "8"]
    assert train_cifar.main(command) == 0
    figures = json.loads((tmp_path / "run" / "metrics.json").read_text())
    # Untrained, the predictor's codes cost about a uniform prior's: 2 x 2 x 10 x 3 codes of 4 bits over 192 values.
    assert figures["strict_bits_per_dim_codes"] == pytest.approx(120 * math.log2(16) / 192, rel=0.1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("residual", {"codebooks": "separate"}, "stages of a residual quantizer need one codebook each"),
        ("residual", {"bottleneck_arguments": "{stages}"}, "no JSON"),
        ("soft_em", {"bottleneck_arguments": '{"colour": 1}'}, "soft_em does not take .*colour"),
        ("finite_scalar", {"num_codes": 100}, "no recommended levels for 100 codes, only for 256, 1024"),
        ("product", {"num_codes": 200}, "200 codes cannot be the product of 2 equal codebooks; 196 can"),
    ],
)
def test_arguments_that_do_not_fit(name, options, message):
    with pytest.raises(InputError, match=message):
        image.make_bottleneck(config_of(name, **options))
