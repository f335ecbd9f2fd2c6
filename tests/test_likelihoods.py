import itertools

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from scipy import special, stats

from vq_keras import likelihoods
from vq_keras.errors import InputError
from vq_keras.likelihoods import Categorical, DiscretizedLogisticMixture, Gaussian

LEVELS = np.arange(256)
ALL = [Categorical(), DiscretizedLogisticMixture(3), Gaussian(), Gaussian(scale=0.1)]
ids = pytest.mark.parametrize("likelihood", ALL, ids=lambda each: f"{type(each).__name__}{each.get_config()}")


def compiled(function):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False)
    import jax

    return jax.jit(function)


def fast(function):
    """Compiled on JAX, where each eager operation is compiled by itself."""
    return function if keras.backend.backend() == "tensorflow" else compiled(function)


def log_prob(likelihood, parameters, images):
    return ops.convert_to_numpy(fast(likelihood.log_prob)(parameters, images))


def mode(likelihood, parameters):
    return ops.convert_to_numpy(fast(likelihood.mode)(parameters))


def sample(likelihood, parameters, seed):
    return ops.convert_to_numpy(fast(lambda each: likelihood.sample(each, seed))(parameters))


def value_and_gradient(likelihood, parameters, images):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        parameters = tf.constant(parameters)
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            value = likelihood.log_prob(parameters, images)
        return value.numpy(), tape.gradient(value, parameters).numpy()
    import jax

    gradient = jax.jit(jax.grad(lambda each: likelihood.log_prob(each, images).sum()))(parameters)
    return log_prob(likelihood, parameters, images), np.asarray(gradient)


def random_case(likelihood, rng, shape=(2, 3, 2), channels=3, dtype="uint8"):
    parameters = rng.normal(size=(*shape, likelihood.num_parameters(channels))).astype("float32")
    return parameters, rng.integers(0, 256, (*shape, channels)).astype(dtype)


# Independent float64 references, one log-probability for each pixel.


def reference(likelihood, parameters, images):
    p, levels = parameters.astype("float64"), images.astype("int64")
    channels = levels.shape[-1]
    x = levels / 127.5 - 1
    if isinstance(likelihood, Categorical):
        logits = special.log_softmax(p.reshape(*p.shape[:-1], channels, 256), axis=-1)
        return np.take_along_axis(logits, levels[..., None], -1)[..., 0].sum(-1)
    if isinstance(likelihood, Gaussian):
        means, scales = (p, likelihood.scale) if likelihood.scale else np.split(p, 2, -1)
        if likelihood.scale is None:
            scales = np.exp(np.maximum(scales, -7))
        return log_normal_mass(levels, (x - means) / scales, 1 / 255 / scales).sum(-1)
    number = likelihood.num_components
    weights = special.log_softmax(p[..., :number], axis=-1)
    means = p[..., number:][..., : number * channels].reshape(*p.shape[:-1], number, channels)
    rest = p[..., number * (1 + channels) :]
    scales = np.exp(np.maximum(rest[..., : number * channels].reshape(means.shape), -7))
    coefficients = np.tanh(rest[..., number * channels :].reshape(*p.shape[:-1], number, -1))
    total = weights
    for c in range(channels):
        location = means[..., c]
        for j in range(c):
            location = location + coefficients[..., c * (c - 1) // 2 + j] * x[..., None, j]
        edge = {0: -np.inf, 255: np.inf}
        low = np.where(levels[..., None, c] == 0, edge[0], x[..., None, c] - 1 / 255)
        high = np.where(levels[..., None, c] == 255, edge[255], x[..., None, c] + 1 / 255)
        spread = {"loc": location, "scale": scales[..., c]}
        total = total + np.log(stats.logistic.cdf(high, **spread) - stats.logistic.cdf(low, **spread))
    return special.logsumexp(total, axis=-1)


def log_normal_mass(levels, z, half):
    distance = np.abs(z)
    upper, lower = special.log_ndtr(half - distance), special.log_ndtr(-half - distance)
    inner = upper + np.log(-np.expm1(np.minimum(lower - upper, -1e-300)))
    return np.where(levels == 0, special.log_ndtr(z + half), np.where(levels == 255, special.log_ndtr(half - z), inner))


@ids
@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint8"), (3, "uint8"), (4, "int32")])
def test_log_prob_equals_float64_reference(likelihood, channels, dtype):
    parameters, images = random_case(likelihood, np.random.default_rng(0), channels=channels, dtype=dtype)
    # Levels and edges of both kinds, far and near: the reference does not cancel at unit-sized parameters.
    images[0, 0, 0], images[0, 0, 1] = 0, 255
    expected = reference(likelihood, parameters, images).sum(axis=(1, 2))
    got = log_prob(likelihood, parameters, images)
    assert got.shape == (2,) and got.dtype == np.float32
    # float32 has 7 digits; a sum over 6 pixels of terms of like sign keeps 5 of them.
    np.testing.assert_allclose(got, expected, rtol=2e-5)


@pytest.mark.parametrize("mean", [-30, -1.01, 0, 0.3, 0.999, 5])
def test_gaussian_is_a_mass_at_any_scale(mean):
    log_scales = np.float32([-9, -7, -5, -2.3, -1, -0.27, -0.25, 0, 3, 7])
    parameters = np.stack(np.broadcast_arrays(np.float32(mean), log_scales[:, None], np.zeros(256)), -1)[..., :2]
    parameters = parameters.astype("float32").reshape(-1, 1, 1, 2)
    images = np.tile(LEVELS, len(log_scales)).reshape(-1, 1, 1, 1)
    log_mass = log_prob(Gaussian(), parameters, images)
    expected = reference(Gaussian(), parameters, images).ravel()
    # The scaled distance z carries a rounding error of 1e-7 of (1 + |mean|) / scale, and log p has the slope z.
    z = np.repeat((1 + abs(mean)) * np.exp(-np.maximum(log_scales, -7)), 256)
    assert np.all(np.abs(log_mass - expected) < 2e-5 * np.abs(expected) + 5e-5 + 3e-7 * z**2)
    if abs(mean) < 2:
        # 256 masses for each scale, with the relative error above.
        totals = np.exp(log_mass.astype("float64")).reshape(-1, 256).sum(axis=1)
        assert np.all(np.abs(totals - 1) < np.where(log_scales < -4, 1e-3, 1e-4))


@settings(deadline=None, max_examples=25)
@given(st.sampled_from([1, 3]), st.integers(0, 10_000), st.floats(0.1, 4))
def test_mixture_of_one_channel_sums_to_one(components, seed, size):
    likelihood = DiscretizedLogisticMixture(
        components
    )  # Uncompiled: its operations are compiled once, for all examples.
    pixel = np.random.default_rng(seed).normal(scale=size, size=likelihood.num_parameters(1)).astype("float32")
    log_mass = likelihood.log_prob(np.tile(pixel, (256, 1, 1, 1)), LEVELS.reshape(256, 1, 1, 1))
    # Narrow components multiply the rounding of x - mean by up to 1,097; the errors of two bins cancel only in part.
    assert np.exp(ops.convert_to_numpy(log_mass).astype("float64")).sum() == pytest.approx(1, abs=1e-3)


def test_mixture_of_two_channels_sums_to_one_over_all_pairs():
    likelihood = DiscretizedLogisticMixture(2)
    pixel = np.random.default_rng(3).normal(size=likelihood.num_parameters(2)).astype("float32")
    pairs = np.stack(np.meshgrid(LEVELS, LEVELS, indexing="ij"), axis=-1).reshape(65536, 1, 1, 2)
    log_mass = log_prob(likelihood, np.tile(pixel, (65536, 1, 1, 1)), pairs)
    # 65,536 float32 masses.
    assert np.exp(log_mass.astype("float64")).sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("scale", [0.01, 0.1, 1.0, 10.0])
def test_fixed_gaussian_and_categorical_sum_to_one(scale):
    images = LEVELS.reshape(256, 1, 1, 1)
    for likelihood, pixel in (
        (Gaussian(scale), np.float32([0.123])),
        (Categorical(), np.random.default_rng(0).normal(scale=9, size=256).astype("float32")),
    ):
        log_mass = log_prob(likelihood, np.tile(pixel, (256, 1, 1, 1)), images)
        assert np.exp(log_mass.astype("float64")).sum() == pytest.approx(1, abs=1e-4)


def test_uniform_categorical_costs_eight_bits():
    nats = log_prob(Categorical(), np.zeros((1, 2, 2, 768)), np.full((1, 2, 2, 3), 77, "uint8"))
    assert nats[0] == pytest.approx(-12 * np.log(256), rel=1e-6)


def test_fixed_gaussian_is_mean_squared_error_up_to_a_constant():
    scale, means = 0.2, np.linspace(-0.7, 0.7, 50, dtype="float32")
    log_mass = log_prob(Gaussian(scale), means.reshape(50, 1, 1, 1), np.full((50, 1, 1, 1), 140))
    squared = (140 / 127.5 - 1 - means) ** 2
    constant = log_mass + squared / (2 * scale**2)
    # The density is not constant over a bin of 0.04 standard deviations: 0.04^2 z^2 / 24 = 0.001 at z = 4.
    np.testing.assert_allclose(constant, np.log(2 / 255 / scale / np.sqrt(2 * np.pi)), atol=2e-3)


def test_extreme_parameters_give_finite_values_and_gradients():
    cases = itertools.product([-1e4, -50, 0, 0.5, 1e4], [-1000, -7, -1, 7, 30], [0, 1, 128, 254, 255])
    mean, log_scale, image = np.float32(list(cases)).T[:, :, None]
    images = np.tile(image, (1, 2)).reshape(-1, 1, 1, 2).astype("uint8")
    both = np.ones((len(mean), 2), "float32")
    mixture = np.tile(np.float32([30, -30, *[0] * 8, 0.3, -50]), (len(mean), 1))
    mixture[:, 2:6], mixture[:, 6:10] = mean, log_scale
    for likelihood, parameters in (
        (DiscretizedLogisticMixture(2), mixture),
        (Gaussian(), np.concatenate([mean * both, log_scale * both], axis=1)),
        (Gaussian(0.1), mean * both),
        (Categorical(), np.where(np.arange(512) % 256 == image, -1e4, mean).astype("float32")),
    ):
        value, gradient = value_and_gradient(likelihood, parameters.reshape(len(mean), 1, 1, -1), images)
        assert np.isfinite(value).all() and np.isfinite(gradient).all(), likelihood
        assert np.all(value <= 1e-6)


@ids
def test_gradient_equals_central_differences(likelihood):
    rng = np.random.default_rng(5)
    parameters, images = random_case(likelihood, rng, shape=(1, 1, 2), channels=2)
    direction = rng.normal(size=parameters.shape)
    _, gradient = value_and_gradient(likelihood, parameters, images)
    ahead, behind = (
        reference(likelihood, parameters.astype("float64") + step * direction, images).sum() for step in (1e-5, -1e-5)
    )
    # The reference differences 1e-5 apart in float64 are good to 1e-6, the float32 gradient to 1e-4.
    assert (gradient * direction).sum() == pytest.approx((ahead - behind) / 2e-5, rel=1e-3)


def test_gaussian_gradient_at_a_bin_edge():
    # A decoder that starts at zero puts the mean exactly between levels 127 and 128, where the gradient is that of
    # either side and opposite for the two.
    levels = np.array([127, 128]).reshape(2, 1, 1, 1)
    _, gradient = value_and_gradient(Gaussian(0.1), np.zeros((2, 1, 1, 1), "float32"), levels)
    # d/dm of -(x - m)^2 / (2 s^2) is (x - m) / s^2, with x half a bin of 2/255 away.
    np.testing.assert_allclose(gradient.ravel(), np.array([-1, 1]) / 255 / 0.01, rtol=1e-2)


@ids
def test_bfloat16_parameters_are_computed_in_float32(likelihood):
    parameters, images = random_case(likelihood, np.random.default_rng(1))
    rounded = ops.cast(parameters, "bfloat16")
    exact = ops.convert_to_numpy(ops.cast(rounded, "float32"))
    everything = fast(lambda p, i: (likelihood.log_prob(p, i), likelihood.mode(p), likelihood.sample(p, 4)))
    got = everything(rounded, images)
    assert keras.backend.standardize_dtype(got[0].dtype) == "float32"
    # As float32 arithmetic on the same rounded numbers, and within bfloat16's 8 bits of the unrounded ones.
    expected = everything(exact, images)
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-6)
    np.testing.assert_array_equal(got[1], expected[1])
    np.testing.assert_array_equal(got[2], expected[2])
    np.testing.assert_allclose(got[0], reference(likelihood, parameters, images).sum(axis=(1, 2)), rtol=0.02)


@pytest.mark.parametrize(
    ("likelihood", "pixel"),
    [
        (Categorical(), np.where(np.arange(512) % 256 < 5, np.arange(512) % 3, -30)),
        (DiscretizedLogisticMixture(2), [0.2, -0.5, -0.4, 0.1, 0.5, -0.9, -4, -4.2, -4.5, -4, 0.8, -0.9]),
        (Gaussian(), [-0.99, 0.4, -5.0, -4.6]),
        (Gaussian(0.01), [0.999, -0.3]),
    ],
)
def test_sample_frequencies_equal_probabilities(likelihood, pixel):
    number = 20_000
    tiled = np.tile(np.float32(pixel), (1, 1, number, 1))
    samples = sample(likelihood, tiled, seed=7).reshape(number, 2)
    pairs, counts = np.unique(samples, axis=0, return_counts=True)
    tiles = np.tile(np.float32(pixel), (len(pairs), 1, 1, 1))
    probability = np.exp(log_prob(likelihood, tiles, pairs.reshape(-1, 1, 1, 2)))
    # Pairs expected 20 times or more are near normal; of a few hundred, none should be off by 5 standard errors.
    often = probability * number > 20
    assert often.sum() > 5 and counts[often].sum() > number / 3
    errors = np.sqrt(number * probability * (1 - probability))
    assert np.all(np.abs(counts - number * probability)[often] < 5 * errors[often])
    # The marginal of each channel: all 256 levels, so nothing is drawn that has no probability.
    assert probability[counts > 5].min() * number > 0.1


@pytest.mark.parametrize(
    ("likelihood", "pixel"),
    [(DiscretizedLogisticMixture(2), [0.2, -0.5, -0.4, 0.7, -2.5, -1.5]), (Gaussian(), [0.7, -1])],
)
def test_cumulative_sample_frequencies_equal_probabilities(likelihood, pixel):
    number = 200_000
    samples = sample(likelihood, np.tile(np.float32(pixel), (1, 1, number, 1)), seed=8).ravel()
    probability = np.exp(log_prob(likelihood, np.tile(np.float32(pixel), (256, 1, 1, 1)), LEVELS.reshape(256, 1, 1, 1)))
    distance = np.cumsum(np.bincount(samples, minlength=256) / number - probability)
    # Kolmogorov-Smirnov at one in a thousand: a scale wrong by 3 % is found out.
    assert np.abs(distance).max() < 1.95 / np.sqrt(number)


def test_modes():
    logits = np.full((1, 1, 1, 2, 256), -1.0, "float32")
    logits[..., 0, 200], logits[..., 1, 3] = 2, 5
    np.testing.assert_array_equal(mode(Categorical(), logits.reshape(1, 1, 1, 512))[0, 0, 0], [200, 3])

    means = np.float32([-7, -1, 10 / 127.5 - 1, 10.4 / 127.5 - 1, 1, 7]).reshape(1, 1, 1, 6)
    np.testing.assert_array_equal(mode(Gaussian(0.3), means)[0, 0, 0], [0, 0, 10, 10, 255, 255])
    both = np.concatenate([means, np.full_like(means, -3)], axis=-1)
    np.testing.assert_array_equal(mode(Gaussian(), both), mode(Gaussian(0.3), means))

    # The second component wins; its green is 0.25 + 0.5 x_red, with x_red rounded to level 191: 191/127.5 - 1.
    pixel = [0.0, 1.0, 9.0, 9.0, 0.5, 0.25, -2, -2, -2, -2, 9.0, np.arctanh(0.5)]
    got = mode(DiscretizedLogisticMixture(2), np.float32(pixel).reshape(1, 1, 1, -1))
    np.testing.assert_array_equal(got[0, 0, 0], [191, round((0.25 + 0.5 * (191 / 127.5 - 1) + 1) * 127.5)])


def test_mode_of_a_dominant_component_is_the_most_probable_pixel():
    likelihood = DiscretizedLogisticMixture(2)
    pixel = np.tile(np.float32([8, 0, 0.21, -0.4, 0, 0, -4, -4, -2, -2, 0.7, 0]), (65536, 1, 1, 1))
    pairs = np.stack(np.meshgrid(LEVELS, LEVELS, indexing="ij"), axis=-1).reshape(65536, 1, 1, 2)
    best = pairs[np.argmax(log_prob(likelihood, pixel, pairs)), 0, 0]
    np.testing.assert_array_equal(mode(likelihood, pixel[:1])[0, 0, 0], best)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="on JAX the other tests are compiled already")
@ids
def test_compiled_equals_eager(likelihood):
    parameters, images = random_case(likelihood, np.random.default_rng(2))
    got = compiled(likelihood.log_prob)(parameters, images)
    np.testing.assert_allclose(got, likelihood.log_prob(parameters, images), rtol=1e-5)
    np.testing.assert_array_equal(compiled(likelihood.mode)(parameters), likelihood.mode(parameters))
    drawn = ops.convert_to_numpy(compiled(lambda each: likelihood.sample(each, 3))(parameters))
    assert drawn.dtype == np.uint8 and drawn.shape == images.shape
    # Fused arithmetic may round one level differently.
    difference = drawn.astype(int) - ops.convert_to_numpy(likelihood.sample(parameters, 3)).astype(int)
    assert np.mean(difference != 0) < 0.06 and np.abs(difference).max() <= 1


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="inspects a TensorFlow graph")
@ids
def test_graph_needs_no_xla_and_takes_any_batch(likelihood):
    import tensorflow as tf

    spec = tf.TensorSpec((None, 4, 4, likelihood.num_parameters(3)), tf.float32)
    for function in (likelihood.mode, lambda each: likelihood.sample(each, 3)):
        graph = tf.function(function, autograph=False).get_concrete_function(spec)
        assert graph.structured_outputs.shape.as_list() == [None, 4, 4, 3]
        assert not [op.type for op in graph.graph.get_operations() if op.type.startswith("Xla")]


def test_seeds():
    likelihood = Gaussian(0.5)
    means = np.zeros((1, 4, 4, 3), "float32")
    np.testing.assert_array_equal(likelihood.sample(means, 1), likelihood.sample(means, 1))
    generator = keras.random.SeedGenerator(1)
    assert np.any(np.not_equal(likelihood.sample(means, generator), likelihood.sample(means, generator)))


@ids
def test_config_round_trip(likelihood):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(likelihood))
    assert type(again) is type(likelihood) and again.get_config() == likelihood.get_config()


def test_get():
    assert isinstance(likelihoods.get("categorical"), Categorical)
    assert likelihoods.get("logistic_mixture").num_components == 10
    assert likelihoods.get("gaussian").scale is None and likelihoods.get("mse").scale == 0.1
    assert likelihoods.get(ALL[1]) is ALL[1]
    with pytest.raises(InputError, match="'huber'; the known ones are categorical, gaussian, logistic_mixture, mse"):
        likelihoods.get("huber")


def test_num_parameters():
    assert [Categorical().num_parameters(c) for c in (1, 3)] == [256, 768]
    assert [DiscretizedLogisticMixture(10).num_parameters(c) for c in (1, 2, 3, 4)] == [30, 60, 100, 150]
    assert Gaussian().num_parameters(3) == 6 and Gaussian(0.1).num_parameters(3) == 3


@pytest.mark.parametrize("make", [lambda: DiscretizedLogisticMixture(0), lambda: Gaussian(0.0), lambda: Gaussian(-1)])
def test_bad_arguments(make):
    with pytest.raises(InputError, match=r"give|at least 1"):
        make()


def test_wrong_last_axis_names_both_sizes():
    images = np.zeros((1, 2, 2, 3), "uint8")
    with pytest.raises(InputError, match=r"needs 768 .* has 512"):
        Categorical().log_prob(ops.zeros((1, 2, 2, 512)), images)
    with pytest.raises(InputError, match=r"needs 100 .* has 99"):
        DiscretizedLogisticMixture(10).log_prob(ops.zeros((1, 2, 2, 99)), images)
    for function in (DiscretizedLogisticMixture(10).mode, lambda each: DiscretizedLogisticMixture(10).sample(each, 1)):
        with pytest.raises(InputError, match=r"needs 100 .* has 99"):
            function(ops.zeros((1, 2, 2, 99)))
    with pytest.raises(InputError, match=r"needs 6 .* has 5"):
        Gaussian().mode(ops.zeros((1, 2, 2, 5)))
