"""The image autoencoder: its loss and metrics against the parts, shapes by architecture, round trips."""

import math
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from vq_keras.bottlenecks import SoftEM, VectorQuantizer
from vq_keras.errors import InputError
from vq_keras.models import architectures
from vq_keras.models.image import ImageAutoencoder
from vq_keras.priors import ImageTransformer, PixelCNN
from vq_keras.training.schedules import WarmupDecay

SHAPE = (8, 8, 3)
tensorflow_only = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="half a minute of compilation")


def images(count=6, shape=SHAPE):
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype="uint8")


def predictor(**kwargs):
    sizes = {
        "num_layers": 1,
        "hidden_dim": 16,
        "num_heads": 2,
        "feed_forward_dim": 16,
        "block_length": 8,
        "dropout": 0.0,
    }
    return ImageTransformer((2, 2, 10), 16, **{**sizes, **kwargs})


def model(bottleneck=None, **kwargs):
    bottleneck = bottleneck or VectorQuantizer(num_codes=16, seed=0)
    return ImageAutoencoder(bottleneck, SHAPE, **kwargs)


@pytest.mark.parametrize("name", architectures.ARCHITECTURES)
def test_architectures_give_8x8x10_latents_and_take_them_back(name):
    architecture = architectures.get(name)
    encoder, decoder = architecture.encoder((32, 32, 3)), architecture.decoder((32, 32, 3), 7)
    assert encoder.output_shape == (None, 8, 8, 10, architecture.latent_dim)
    assert decoder.input_shape == encoder.output_shape
    assert decoder.output_shape == (None, 32, 32, 7)


def test_sizes_of_the_papers():
    # oord2017: two 4x4 convolutions of stride 2 with 256 units; roy2018: 5x5 ones, latents of 512 dimensions.
    oord = [layer for layer in architectures.get("oord2017").encoder((32, 32, 3)).layers if "conv2d" in layer.name]
    assert [(layer.kernel_size[0], layer.strides[0], layer.filters) for layer in oord][:3] == [
        (4, 2, 256),
        (4, 2, 256),
        (3, 1, 256),
    ]
    roy = [layer for layer in architectures.get("roy2018").encoder((32, 32, 3)).layers if "conv2d" in layer.name]
    assert [layer.strides[0] for layer in roy if layer.kernel_size[0] == 5] == [2, 2, 1, 1]
    assert architectures.get("roy2018").latent_dim == 512


def test_image_sizes_that_do_not_fit_are_refused_with_one_that_does():
    with pytest.raises(InputError, match="such as 32x28"):
        architectures.get("small").code_shape((33, 30, 3))
    with pytest.raises(InputError, match="known ones are oord2017, roy2018, small"):
        architectures.get("large")
    with pytest.raises(InputError, match="latents_per_position is 0; give 1 or more"):
        architectures.get("small", latents_per_position=0)


@pytest.mark.parametrize("size, field", [(128, (32, 32, 1)), (84, (21, 21, 1))])
def test_one_latent_a_position_gives_the_fields_of_imagenet_and_dm_lab(size, field):
    architecture = architectures.get("small", latents_per_position=1)
    encoder, decoder = architecture.encoder((size, size, 3)), architecture.decoder((size, size, 3), 7)
    assert encoder.output_shape == decoder.input_shape == (None, *field, architecture.latent_dim)
    assert decoder.output_shape == (None, size, size, 7)


def test_the_loss_is_the_sum_of_its_terms():
    whole = model(latent_predictor=predictor(), predictor_weight=0.5)
    x = images()
    outputs = whole({"images": x}, training=False)

    latents = whole.encoder(x)
    quantized = whole.bottleneck.decode(whole.bottleneck.encode(latents))
    log_prob = ops.convert_to_numpy(whole.likelihood.log_prob(whole.decoder(quantized), x))
    np.testing.assert_allclose(outputs["nll_x"], -log_prob / 192, rtol=1e-5)

    codes = ops.reshape(whole.encode(x), (-1, 40, 1))
    logits = ops.convert_to_numpy(whole.latent_predictor(codes)).astype("float64")
    logits -= logits.max(-1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    nll_z = -np.take_along_axis(log_p, ops.convert_to_numpy(codes), axis=-1).mean(axis=(1, 2))
    np.testing.assert_allclose(outputs["nll_z"], nll_z, rtol=1e-5)

    commitment = 0.25 * np.mean(np.square(ops.convert_to_numpy(latents) - ops.convert_to_numpy(quantized)))
    loss = whole.compute_loss({"images": x}, None, outputs)
    # The layer's own losses are those of the last call, which was the functional one above.
    np.testing.assert_allclose(loss, -log_prob.mean() / 192 + 0.5 * nll_z.mean() + commitment, rtol=1e-5)


def test_metrics_of_fit_agree_with_the_outputs():
    whole = model()
    whole.compile("adam")
    x = images(8)
    result = whole.evaluate({"images": x}, batch_size=4, return_dict=True, verbose=0)
    outputs = whole.predict({"images": x}, batch_size=4, verbose=0)
    assert result["nll_x"] == pytest.approx(outputs["nll_x"].mean(), rel=1e-5)
    # Without a predictor each of the 40 codes costs ln 16 nats.
    assert result["nll_z"] == pytest.approx(math.log(16), rel=1e-6)
    bits = (outputs["nll_x"].mean() * 192 + 40 * math.log(16)) / 192 / math.log(2)
    assert result["bits_per_dim"] == pytest.approx(bits, rel=1e-5)
    assert result["codes_in_use"] == len(np.unique(outputs["codes"]))
    latents = ops.convert_to_numpy(whole.encoder(x))
    quantized = ops.convert_to_numpy(whole.bottleneck.decode(outputs["codes"]))
    np.testing.assert_allclose(outputs["distances"], np.square(latents - quantized).mean(-1), rtol=1e-4)
    assert result["codebook_distance"] == pytest.approx(outputs["distances"].mean(), rel=1e-5)


def test_bottlenecks_that_compare_elsewhere_have_no_distance():
    whole = model(VectorQuantizer(num_codes=16, cosine=True))
    whole.compile("adam")
    assert "codebook_distance" not in whole.evaluate({"images": images(2)}, return_dict=True, verbose=0)


def test_the_predictor_sends_no_gradient_to_the_encoder_and_gets_soft_labels():
    whole = model(SoftEM(16, num_samples=3, seed=0), latent_predictor=predictor())
    alone = model(SoftEM(16, num_samples=3, seed=0))
    for part in ("encoder", "decoder"):
        getattr(alone, part).set_weights(getattr(whole, part).get_weights())
    for one in (whole, alone):
        one.compile(keras.optimizers.SGD(0.1))
        one.fit({"images": images(4)}, batch_size=4, shuffle=False, verbose=0)
    for one, other in zip(whole.encoder.get_weights(), alone.encoder.get_weights(), strict=True):
        # Equal but for the order of sums inside two different graphs.
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
# JAX compiles each for half a minute.
@pytest.mark.parametrize(
    "likelihood",
    ["categorical", "logistic_mixture", *(pytest.param(name, marks=tensorflow_only) for name in ("gaussian", "mse"))],
)
def test_a_few_steps_of_training_lower_the_loss(likelihood):
    x = np.repeat(images(1), 8, axis=0)
    whole = model(VectorQuantizer(16, seed=0), likelihood=likelihood, latent_predictor=predictor())
    whole.compile(keras.optimizers.Adam(3e-3))
    history = whole.fit({"images": x}, batch_size=8, epochs=60, verbose=0).history
    assert history["nll_x"][-1] < history["nll_x"][0]
    # One image: its codes can be learned by heart, between the jumps that a code's change makes. Seen: 0.12 to 0.31.
    assert history["nll_z"][-1] < 0.5 * history["nll_z"][0]


@pytest.mark.slow
@pytest.mark.parametrize("separate", [False, True])
def test_keras_file_round_trip_is_bit_equal(tmp_path, separate):
    codebooks = 10 if separate else 1
    whole = model(SoftEM(16, num_codebooks=codebooks, seed=3), latent_predictor=predictor(num_codebooks=codebooks))
    whole.compile("adam")
    whole.fit({"images": images()}, verbose=0)
    whole.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for one, other in zip(whole.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(one), ops.convert_to_numpy(other), err_msg=one.path)
    before, after = (m.predict({"images": images()}, verbose=0) for m in (whole, loaded))
    for name in ("codes", "nll_x", "nll_z"):
        np.testing.assert_array_equal(before[name], after[name])


@pytest.mark.slow
def test_a_file_loads_in_a_process_that_imported_nothing_else(tmp_path):
    whole = model(SoftEM(16, seed=3))
    prior = predictor()
    prior.compile(keras.optimizers.Adam(WarmupDecay(1e-3, 1, 10)))
    whole.with_latent_predictor(prior).save(tmp_path / "model.keras")
    (tmp_path / "config.json").write_text("{}")
    load = f"from vq_keras.training import runs; print(runs.load_model({str(tmp_path)!r}).bottleneck.num_codes)"
    result = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, check=False)
    assert result.stdout == "16\n", result.stderr


def test_a_predictor_added_afterwards_changes_only_the_prior():
    alone = model()
    alone.compile("adam")
    alone.fit({"images": images()}, verbose=0)
    prior = predictor()
    whole = alone.with_latent_predictor(prior)
    before, after = (m.predict({"images": images()}, verbose=0) for m in (alone, whole))
    np.testing.assert_array_equal(before["codes"], after["codes"])
    np.testing.assert_array_equal(before["nll_x"], after["nll_x"])
    samples = before["codes"].reshape(6, 40, 1)
    expected = ops.convert_to_numpy(prior.cross_entropy(samples, prior(samples))) / 40
    np.testing.assert_allclose(after["nll_z"], expected, rtol=1e-5)


def test_mixed_precision_keeps_the_likelihood_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    whole = model(latent_predictor=predictor())
    outputs = whole({"images": images()})
    assert keras.backend.standardize_dtype(outputs["nll_x"].dtype) == "float32"
    assert keras.backend.standardize_dtype(whole.decoder.output.dtype) == "float32"
    # The last convolution runs in half precision; the latents are normalised in float32.
    assert whole.encoder.get_layer("to_latents").compute_dtype == "bfloat16"
    assert keras.backend.standardize_dtype(whole.encoder.output.dtype) == "float32"


def test_a_predictor_of_classes_makes_them_an_input_and_learns_from_them():
    prior = PixelCNN((2, 2, 10), 16, num_layers=1, hidden_dim=8, num_classes=2, name="latent_predictor")
    whole = model(latent_predictor=prior)
    x = {"images": images(), "classes": np.arange(len(images())).astype("int32") % 2}
    whole.compile(keras.optimizers.Adam(1e-2))
    first = whole.fit(x, batch_size=4, epochs=1, verbose=0).history["nll_z"][0]
    assert whole.fit(x, batch_size=4, epochs=5, verbose=0).history["nll_z"][-1] < first
    other = {**x, "classes": 1 - x["classes"]}
    assert np.all(whole.predict(x, verbose=0)["nll_z"] != whole.predict(other, verbose=0)["nll_z"])
    np.testing.assert_array_equal(whole.predict(x, verbose=0)["nll_x"], whole.predict(other, verbose=0)["nll_x"])
