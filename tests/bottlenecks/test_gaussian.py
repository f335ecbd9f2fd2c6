"""The continuous bottlenecks: moments, divergence, draws and their probabilities against numpy and scipy."""

import keras
import numpy as np
import pytest
from contract import built, compiled_gradients
from harness import array, assert_same_state, call, state
from keras import ops
from scipy import integrate, stats

from vq_keras.bottlenecks import Gaussian, GaussianSamples, Projected, ResidualQuantizer
from vq_keras.errors import InputError

GARBAGE = np.array([np.nan, np.inf, -np.inf, 1e38], "float32")
MASK = np.array([[True, True, False, True, False], [False, True, True, True, True]])
SHAPE = (2, 5, 4)
BOTH = pytest.mark.parametrize("make", [lambda: Gaussian(seed=1), lambda: GaussianSamples(3, seed=1)], ids=["1", "3"])


def make_built(make, shape=SHAPE):
    """A layer whose bias is not where it starts."""
    layer = built(make, shape)
    layer.to_moments.bias.assign(np.linspace(-0.6, 0.8, 2 * shape[-1]))
    return layer


def moments(layer, latents):
    """Mean, log-variance and its derivative by the dense layer's output, float64."""
    kernel, bias = (array(weight).astype("float64") for weight in layer.to_moments.weights)
    mean, raw = np.split(latents.astype("float64") @ kernel + bias, 2, axis=-1)
    return mean, 14 * np.tanh(raw / 14), 1 - np.tanh(raw / 14) ** 2


@pytest.fixture
def latents(rng):
    return rng.normal(size=SHAPE).astype("float32")


@BOTH
def test_evaluation_gives_the_mean(make, latents):
    layer = make_built(make)
    outputs = call(layer, latents, training=False)
    mean = moments(layer, latents)[0]
    np.testing.assert_allclose(outputs["quantized"], mean, rtol=1e-5, atol=1e-6)
    found = array(layer.encode(latents))
    np.testing.assert_allclose(found, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(array(layer.decode(found)), found)
    assert "codes" not in outputs and "samples" not in outputs
    assert outputs["loss"] == 0


@pytest.mark.parametrize("training", [False, True])
def test_the_divergence_is_that_of_quadrature(training, latents):
    layer = make_built(Gaussian)
    mean, log_variance, _ = moments(layer, latents)
    kl = call(layer, latents, training=training)["kl"]
    for position in ((0, 0), (1, 3)):
        expected = 0.0
        for centre, scale in zip(mean[position], np.exp(log_variance[position] / 2), strict=True):
            q, prior = stats.norm(centre, scale), stats.norm()
            ends = centre - 12 * scale, centre + 12 * scale
            expected += integrate.quad(lambda z, q=q, p=prior: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), *ends)[0]
        assert kl[position] == pytest.approx(expected, rel=1e-5)


@BOTH
def test_draws_are_normal_and_independent(make, rng):
    layer = make_built(make)
    latent = rng.normal(size=4).astype("float32")
    mean, log_variance, _ = moments(layer, latent)
    outputs = call(layer, np.tile(latent, (30_000, 1)), training=True)
    vectors = outputs["vectors"]
    assert vectors.shape == (30_000, layer.num_samples, 4)
    np.testing.assert_array_equal(outputs["quantized"], vectors[:, 0])
    noise = ((vectors - mean) / np.exp(log_variance / 2)).reshape(30_000, -1)
    for each in noise.T:
        assert stats.kstest(each, "norm").pvalue > 1e-3
    # Four standard errors of the correlation of independent columns.
    assert abs(np.corrcoef(noise.T) - np.eye(noise.shape[1])).max() < 4 / np.sqrt(30_000)


@BOTH
def test_draws_are_new_each_time_in_evaluation_too(make, latents):
    layer = make_built(make)
    first, second = (call(layer, latents, training=False)["vectors"] for _ in range(2))
    assert (first != second).all()


def test_the_gradient_goes_through_the_draw(latents, rng):
    """dz/dmean = 1 and dz/ds = (z - mean) / 2, for the latents through both halves of the dense layer."""
    layer, upstream = make_built(lambda: Gaussian(seed=1)), rng.normal(size=SHAPE).astype("float32")
    mean, _, slope = moments(layer, latents)
    drawn = call(make_built(lambda: Gaussian(seed=1)), latents, training=True)["quantized"]
    kernel = array(layer.to_moments.kernel).astype("float64")
    expected = np.concatenate([upstream, upstream * (drawn - mean) / 2 * slope], axis=-1) @ kernel.T
    np.testing.assert_allclose(compiled_gradients(layer, latents, upstream)[0], expected, rtol=1e-4, atol=1e-5)


def test_no_log_variance_is_too_large_to_be_finite(rng):
    layer = built(Gaussian, (None, 4))
    latents = (1e4 * rng.normal(size=(20, 4))).astype("float32")
    outputs = call(layer, latents, training=True)
    assert all(np.isfinite(values).all() for values in outputs.values())
    assert np.isfinite(compiled_gradients(layer, latents, np.ones((20,), "float32"), output="kl")[0]).all()


def test_probabilities_of_draws(latents):
    layer = make_built(lambda: GaussianSamples(7, seed=1))
    mean, log_variance, _ = moments(layer, latents)
    for training in (False, True):
        outputs = call(layer, latents, training=training)
        assert outputs["vectors"].shape == (2, 5, 7, 4)
        scales = np.exp(log_variance / 2)[:, :, None]
        expected = stats.norm.logpdf(outputs["vectors"], mean[:, :, None], scales).sum(-1)
        np.testing.assert_allclose(outputs["log_probs"], expected, rtol=1e-5)
        np.testing.assert_allclose(outputs["log_priors"], stats.norm.logpdf(outputs["vectors"]).sum(-1), rtol=1e-5)


def test_gradients_reach_probabilities_and_not_draws(latents, rng):
    """d log q(z) / dmean = (z - mean) / variance and d log q(z) / ds = ((z - mean)^2 / variance - 1) / 2, z given."""
    layer, upstream = make_built(lambda: GaussianSamples(3, seed=1)), rng.normal(size=(2, 5, 3)).astype("float32")
    mean, log_variance, slope = (each[:, :, None] for each in moments(layer, latents))
    drawn = call(make_built(lambda: GaussianSamples(3, seed=1)), latents, training=True)["vectors"]
    error, kernel = (drawn - mean) / np.exp(log_variance), array(layer.to_moments.kernel).astype("float64")
    slopes = np.concatenate([error, (error * (drawn - mean) - 1) / 2 * slope], axis=-1) @ kernel.T
    expected = (upstream[..., None] * slopes).sum(2)
    found = compiled_gradients(layer, latents, upstream, output="log_probs")[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    for output in ("vectors", "log_priors", "quantized"):
        ones = np.ones(call(layer, latents, training=True)[output].shape, "float32")
        for_latents, for_weights = compiled_gradients(layer, latents, ones, output=output)
        assert not for_latents.any()
        assert not any(each is not None and each.any() for each in for_weights)


@BOTH
def test_garbage_in_masked_positions_changes_nothing(make, latents):
    zeros = np.where(MASK[..., None], latents, 0).astype("float32")
    garbage = latents.copy()
    garbage[~MASK] = GARBAGE
    layers = [make_built(make) for _ in range(2)]
    first, second = (
        call(layer, x, mask=MASK, training=True) for layer, x in zip(layers, (garbage, zeros), strict=True)
    )
    assert set(first) == {*layers[0].outputs_of_call, "loss"}
    for name in layers[0].outputs_of_call:
        np.testing.assert_array_equal(first[name], second[name])
        assert not first[name][~MASK].any()
        assert first[name][MASK].all()
    assert_same_state(*map(state, layers))
    output = "kl" if type(layers[0]) is Gaussian else "log_probs"
    upstream = np.ones(first[output].shape, "float32")
    ours, theirs = (
        compiled_gradients(make_built(make), x, upstream, mask=MASK, output=output) for x in (garbage, zeros)
    )
    assert not ours[0][~MASK].any()
    assert ours[0][MASK].all()
    for one, other in zip([ours[0], *ours[1]], [theirs[0], *theirs[1]], strict=True):
        np.testing.assert_array_equal(one, other)


@BOTH
def test_latents_that_are_no_numbers(make, latents):
    latents[0, 1, 2], latents[1, 4, 0] = np.nan, np.inf
    layer = make_built(make)
    broken = ~np.isfinite(latents).all(-1)
    outputs = call(layer, latents, training=True)
    for name in layer.outputs_of_call:
        np.testing.assert_array_equal(np.isnan(outputs[name]).reshape(2, 5, -1).all(-1), broken)
        np.testing.assert_array_equal(np.isnan(outputs[name]).reshape(2, 5, -1).any(-1), broken)
    np.testing.assert_array_equal(np.isnan(array(layer.encode(latents))).all(-1), broken)


@BOTH
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_only_rounds_what_goes_in_and_out(make, policy, latents):
    latents = array(ops.cast(ops.cast(latents, "bfloat16"), "float32")).astype("float16").astype("float32")
    expected = call(make_built(make), latents, training=True)
    keras.config.set_dtype_policy(policy)
    layer = make_built(make)
    outputs = call(layer, latents, training=True)
    assert all(variable.dtype == "float32" for variable in layer.weights)
    for name in layer.outputs_of_call:
        if name in ("quantized", "vectors"):
            assert keras.backend.standardize_dtype(outputs[name].dtype) == layer.compute_dtype
            rounded = array(ops.cast(ops.cast(expected[name], layer.compute_dtype), "float32"))
            np.testing.assert_array_equal(outputs[name].astype("float32"), rounded)
        else:
            assert outputs[name].dtype == "float32"
            np.testing.assert_array_equal(outputs[name], expected[name])
    decoded = layer.decode(layer.encode(latents))
    np.testing.assert_array_equal(array(decoded), call(layer, latents, training=False)["quantized"])


@BOTH
def test_shapes_are_known_before_the_call(make):
    layer = make()
    outputs = layer(keras.Input((5, 3, 4)))
    m = layer.num_samples
    shapes = {"quantized": (4,), "vectors": (m, 4), "kl": (), "log_probs": (m,), "log_priors": (m,)}
    assert set(outputs) == set(layer.outputs_of_call)
    assert {name: output.shape[3:] for name, output in outputs.items()} == {name: shapes[name] for name in outputs}
    assert layer.code_shape((5, 3)) == (5, 3)


@pytest.mark.parametrize("training", [False, True])
def test_an_empty_batch(training):
    outputs = call(make_built(lambda: GaussianSamples(3)), np.zeros((0, 5, 4), "float32"), training=training)
    assert outputs["vectors"].shape == (0, 5, 3, 4)
    assert outputs["log_probs"].shape == (0, 5, 3)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # Draws that are scored let none through.
@BOTH
def test_a_saved_model_computes_and_trains_the_same(make, tmp_path, rng):
    """With the state of the noise: what is drawn after loading is what would have been drawn."""
    data = rng.normal(size=(12, 8, 6)).astype("float32")
    bottleneck = make()
    inputs = keras.Input((8, 6))
    outputs = bottleneck(keras.layers.Dense(4)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(6)(outputs["quantized"]))
    model.compile("adam", "mse")
    model.fit(data, data, epochs=2, batch_size=4, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    again = loaded.get_layer(bottleneck.name)
    assert again.get_config() == bottleneck.get_config()
    assert_same_state(state(again), state(bottleneck))
    np.testing.assert_array_equal(loaded.predict(data, verbose=0), model.predict(data, verbose=0))
    for each in (model, loaded):
        each.fit(data, data, epochs=1, batch_size=4, verbose=0, shuffle=False)
    assert_same_state(state(again), state(bottleneck))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: GaussianSamples(1), "num_samples is 1; the bound of many samples needs at least 2"),
        (lambda: built(Gaussian, (None, 5))(np.zeros((2, 4), "float32")), "latents have 4 dimensions"),
        (
            lambda: built(Gaussian, (None, 5))(np.zeros((2, 5), "float32"), mask=np.ones(3)),
            r"mask has the shape \(3,\)",
        ),
        (lambda: Projected(Gaussian(), dim=3), "a Gaussian cannot be a part of another bottleneck"),
        (lambda: ResidualQuantizer([GaussianSamples()]), "a GaussianSamples cannot be a part"),
    ],
)
def test_what_does_not_fit(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(("make", "scale"), [(lambda: Gaussian(seed=1), 0.14), (lambda: GaussianSamples(3, seed=1), 1)])
def test_where_the_distribution_starts(make, scale):
    """For a latent of zero: mean 0, and the standard deviation exp(7 tanh(-4 / 14)) = 0.143, or 1."""
    draws = call(built(make, SHAPE), np.zeros((2000, 4), "float32"), training=True)["vectors"]
    assert draws.mean() == pytest.approx(0, abs=0.03 * scale)  # Three standard errors and more of 8,000 draws.
    assert draws.std() == pytest.approx(np.exp(7 * np.tanh(-4 / 14)) if scale < 1 else 1, rel=0.03)
