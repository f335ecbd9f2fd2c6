"""Gumbel-softmax: its draws, mixtures, gradients and loss against numpy, its schedule, masks and files."""

import keras
import numpy as np
import pytest
from harness import BACKEND, array, assert_same_state, assert_training_goes_on_after_loading, call, gradients, state
from hypothesis import given, settings
from hypothesis.extra import numpy as npst
from keras import ops
from numpy_codebook import nearest, probabilities, squared_distances

from vq_keras.bottlenecks import assignment
from vq_keras.bottlenecks.gumbel_softmax import TINY, GumbelSoftmax, _divergence, code_logits
from vq_keras.errors import InputError

GARBAGE = np.array([np.nan, np.inf, -np.inf, 1e38], "float32")
MASK = np.array([[True, True, False, True, False], [False, True, True, True, True]])
SHAPE = (2, 5, 4)


def make(codes, **arguments):
    """A built layer with these codes."""
    layer = GumbelSoftmax(codes.shape[-2], **{"temperature": 0.7, "seed": 1, **arguments})
    layer.build((None, *codes.shape[::2]) if codes.ndim == 3 else (None, codes.shape[-1]))
    layer.codebook.set(codes)
    return layer


def noise(shape, seed=1):
    """What a layer with this seed draws first."""
    uniforms = array(keras.random.uniform(shape, minval=TINY, seed=keras.random.SeedGenerator(seed)))
    return -np.log(-np.log(uniforms.astype("float64")))


def numpy_logits(latents, codes):
    return -squared_distances(latents.reshape(-1, latents.shape[-1]), codes) / np.sqrt(latents.shape[-1])


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def divergence(logits):
    q = softmax(logits)
    return (q * np.log(q * q.shape[-1])).sum(-1)


@pytest.fixture
def case(rng):
    """Codes, latents and a gradient that comes back from the decoder."""
    return rng.normal(size=(6, 4)), rng.normal(size=SHAPE).astype("float32"), rng.normal(size=SHAPE).astype("float32")


@pytest.mark.parametrize("hard", [False, True])
def test_the_mixture_is_numpys_with_the_same_noise(hard, case):
    codes, latents, _ = case
    outputs = call(make(codes, hard=hard), latents, training=True)
    noisy = numpy_logits(latents, codes) + noise((10, 1, 6))[:, 0]
    drawn = noisy.argmax(-1)
    np.testing.assert_array_equal(outputs["samples"].reshape(-1), drawn)
    np.testing.assert_array_equal(outputs["codes"].reshape(-1), nearest(latents.reshape(-1, 4), codes))
    if hard:
        np.testing.assert_array_equal(outputs["quantized"].reshape(-1, 4), codes.astype("float32")[drawn])
    else:
        np.testing.assert_allclose(outputs["quantized"].reshape(-1, 4), softmax(noisy / 0.7) @ codes, atol=2e-6)


@pytest.mark.parametrize("how", ["call", "sample"])
def test_the_frequencies_of_draws_are_the_softmax_of_the_logits(how, rng):
    """Also at a temperature far from 1, which divides the noise as well."""
    codes, latent = rng.normal(size=(5, 4)), rng.normal(size=4)
    layer = make(codes, temperature=0.1)
    latents = np.tile(latent, (200_000, 1)).astype("float32")
    samples = call(layer, latents, training=True)["samples"] if how == "call" else array(layer.sample(latents))
    expected = probabilities(latent[None], codes, temperature=2.0)[0]
    assert expected.max() > 2 * expected.min()
    frequencies = np.bincount(samples.ravel(), minlength=5) / samples.size
    # Four standard errors.
    assert (abs(frequencies - expected) < 4 * np.sqrt(expected * (1 - expected) / samples.size)).all()


def test_cold_mixtures_are_single_codes(case):
    codes = np.eye(4)  # So that the output is y.
    outputs = call(make(codes, temperature=1e-8), case[1], training=True)
    # To the last bit, but that XLA's exp(0) is not.
    np.testing.assert_allclose(outputs["quantized"], codes[outputs["samples"][..., 0]], atol=1e-6)


def test_gradients_of_the_mixture(case):
    """By hand: with a_k = g.e_k, dL/dlogits = y (a - y.a) / temperature, and the logits' own derivatives."""
    codes, latents, upstream = case
    for_latents, [for_codes] = gradients(make(codes), latents, upstream)
    x, g = latents.reshape(-1, 4).astype("float64"), upstream.reshape(-1, 4).astype("float64")
    y = softmax((numpy_logits(latents, codes) + noise((10, 1, 6))[:, 0]) / 0.7)
    a = g @ codes.T
    for_logits = y * (a - (y * a).sum(-1, keepdims=True)) / 0.7
    differences = 2 * (x[:, None] - codes) / np.sqrt(4)  # d logits / d codes, and less it for the latents.
    expected = -(for_logits[..., None] * differences).sum(1)
    np.testing.assert_allclose(for_latents.reshape(-1, 4), expected, atol=5e-6)
    expected = y.T @ g + (for_logits[..., None] * differences).sum(0)
    np.testing.assert_allclose(for_codes[0], expected, atol=5e-6)


def test_the_hard_form_has_the_gradients_of_the_soft_one(case):
    codes, latents, upstream = case
    soft, hard = (gradients(make(codes, hard=hard), latents, upstream) for hard in (False, True))
    np.testing.assert_array_equal(hard[0], soft[0])
    np.testing.assert_array_equal(hard[1][0], soft[1][0])
    assert abs(soft[0]).max() > 0.1


def test_the_loss_in_training_and_evaluation(case, monkeypatch):
    codes, latents, _ = case
    expected = 0.3 * divergence(numpy_logits(latents, codes)).mean()
    layer = make(codes, kl_weight=0.3)
    monkeypatch.setattr(assignment, "MAX_DISTANCES", 20)  # Chunks of three rows in evaluation.
    for training in (True, False):
        outputs = call(layer, latents, training=training)
        assert outputs["loss"] == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(outputs["codes"].reshape(-1), nearest(latents.reshape(-1, 4), codes))
    np.testing.assert_array_equal(outputs["samples"][..., 0], outputs["codes"])
    np.testing.assert_array_equal(array(layer.encode(latents)), outputs["codes"])
    np.testing.assert_array_equal(array(layer.decode(outputs["codes"])), outputs["quantized"])
    assert not array(layer.decode([[-1]])).any()


def test_a_code_that_is_certain_costs_ln_of_their_number():
    certain, open_to_all = ops.convert_to_tensor([[100.0, 0, 0, 0]]), ops.zeros((1, 4))
    assert float(_divergence(certain)[0]) == pytest.approx(np.log(4))
    assert float(_divergence(open_to_all)[0]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dim", [8, 512])
def test_the_spread_of_the_logits_does_not_grow_with_the_dimension(dim, rng):
    """The variance of (x - e)^2 over e is 2 + 4 x^2, on average 6."""
    latents, codes = rng.normal(size=(400, 1, dim)), rng.normal(size=(1, 400, dim))
    logits = array(code_logits(*(ops.convert_to_tensor(each, "float32") for each in (latents, codes))))
    assert np.sqrt(logits.var(-1).mean()) == pytest.approx(np.sqrt(6), rel=0.1)


def test_several_codebooks(rng):
    codes, latents = rng.normal(size=(2, 6, 4)), rng.normal(size=(3, 2, 4)).astype("float32")
    outputs = call(make(codes, num_codebooks=2), latents, training=True)
    noisy = [numpy_logits(latents[:, book], codes[book]) + noise((3, 2, 6))[:, book] for book in range(2)]
    expected = np.stack([softmax(each / 0.7) @ book for each, book in zip(noisy, codes, strict=True)], axis=1)
    np.testing.assert_allclose(outputs["quantized"], expected, atol=2e-6)
    np.testing.assert_array_equal(outputs["samples"][..., 0], np.stack([each.argmax(-1) for each in noisy], axis=1))


def test_the_temperature_follows_its_schedule(case):
    codes, latents, _ = case
    layer = make(codes, temperature=None)
    temperatures = [float(layer.temperature(step)) for step in (0, 2500, 5000, 9000)]
    np.testing.assert_allclose(temperatures, [1.2, 0.7, 0.2, 0.2], rtol=1e-6)
    layer.steps.assign(2500)
    np.testing.assert_allclose(
        call(layer, latents, training=True)["quantized"],
        call(make(codes, temperature=0.7), latents, training=True)["quantized"],
        rtol=1e-5,
    )
    assert array(layer.steps) == 2501


def test_what_moves_the_state(rng):
    layer = GumbelSoftmax(6, seed=1)
    latents = rng.normal(size=SHAPE).astype("float32")
    layer.build(SHAPE)
    start = state(layer)
    call(layer, latents, training=False)
    assert_same_state(state(layer), start)
    layer.trainable = False
    call(layer, latents, training=True)
    assert_same_state(
        *({k: v for k, v in each.items() if k != "seed_generator_state"} for each in (state(layer), start))
    )
    layer.trainable = True
    for _ in range(3):
        call(layer, latents, training=True)
    assert array(layer.steps) == 3 and array(layer.codebook.maturity) > 0
    # Codes are latents of the first batch.
    assert squared_distances(array(layer.codebook.embeddings)[0], latents.reshape(-1, 4)).min(-1).max() < 1e-12


def test_the_noise_is_finite_at_the_ends_of_its_range(case, monkeypatch):
    def ends(shape, minval=0.0, **_):
        return ops.where(ops.reshape(ops.arange(np.prod(shape)) % 2 == 0, shape), minval, 1 - 2.0**-24)

    monkeypatch.setattr(keras.random, "uniform", ends)
    outputs = call(make(case[0]), case[1], training=True)
    assert np.isfinite(outputs["quantized"]).all()
    assert (outputs["samples"] % 2 == 1).all()


def test_garbage_in_masked_positions_changes_nothing(case):
    codes, latents, upstream = case
    zeros = np.where(MASK[..., None], latents, 0).astype("float32")
    latents[~MASK] = GARBAGE
    layers = [GumbelSoftmax(6, temperature=0.7, seed=1) for _ in range(2)]
    first, second = (
        call(layer, x, mask=MASK, training=True) for layer, x in zip(layers, (latents, zeros), strict=True)
    )
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    assert_same_state(*map(state, layers))
    assert not first["quantized"][~MASK].any()
    for name in ("codes", "samples"):
        np.testing.assert_array_equal(first[name].reshape(2, 5) == -1, ~MASK)

    garbage, clean = (gradients(make(codes), x, upstream, mask=MASK) for x in (latents, zeros))
    assert not garbage[0][~MASK].any()
    for ours, theirs in zip([garbage[0], *garbage[1]], [clean[0], *clean[1]], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_any_mask(rng):
    codes = rng.normal(size=(6, 4))
    layer = make(codes, kl_weight=1.0)

    @given(npst.arrays(bool, (2, 5)))
    @settings(max_examples=15, deadline=None)
    def check(mask):
        latents = rng.normal(size=SHAPE).astype("float32")
        latents[~mask] = GARBAGE
        outputs = call(layer, latents, mask=mask, training=True)
        np.testing.assert_array_equal(outputs["codes"][mask], nearest(latents[mask], codes))
        expected = divergence(numpy_logits(latents[mask], codes)).mean() if mask.any() else 0
        assert outputs["loss"] == pytest.approx(expected, rel=1e-5)
        # Mixtures stay within the box around the codes; absent ones are zero.
        assert (outputs["quantized"][mask] <= codes.max(0) + 1e-5).all()
        assert (outputs["quantized"][mask] >= codes.min(0) - 1e-5).all()
        assert not outputs["quantized"][~mask].any()

    check()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_only_rounds_what_goes_in_and_out(policy, case):
    codes, latents, _ = case
    latents = array(ops.cast(ops.cast(latents, "bfloat16"), "float32")).astype("float16").astype("float32")
    expected = call(make(codes), latents, training=True)
    keras.config.set_dtype_policy(policy)
    layer = make(codes)
    outputs = call(layer, latents, training=True)
    half = layer.compute_dtype
    assert outputs["loss"] == expected["loss"]
    np.testing.assert_array_equal(outputs["samples"], expected["samples"])
    rounded = array(ops.cast(ops.cast(expected["quantized"], half), "float32"))
    np.testing.assert_array_equal(outputs["quantized"].astype("float32"), rounded)


def test_a_saved_model_computes_and_trains_the_same(tmp_path, rng):
    schedule = keras.optimizers.schedules.PolynomialDecay(1.0, 10, 0.1)
    bottleneck = GumbelSoftmax(16, temperature=schedule, hard=True, kl_weight=0.02, seed=4, name="bottleneck")
    again = assert_training_goes_on_after_loading(bottleneck, rng, tmp_path)
    assert again.temperature.get_config() == schedule.get_config()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_codes": 1}, "num_codes is 1"),
        ({"temperature": 0.0}, "temperature is 0.0; give a number above 0, or a schedule"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"kl_weight": -1}, "kl_weight is -1"),
        ({"kl_weight": float("nan")}, "kl_weight is nan"),
    ],
)
def test_arguments_outside_their_range(arguments, message):
    with pytest.raises(InputError, match=message):
        GumbelSoftmax(**{"num_codes": 8, **arguments})


@pytest.mark.parametrize("arguments", [{}, {"temperature": 0.5, "hard": True, "kl_weight": 0.2, "num_codebooks": 2}])
def test_the_configuration_makes_the_same_bottleneck(arguments):
    layer = GumbelSoftmax(8, seed=3, **arguments)
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert again.get_config() == layer.get_config()
    assert type(again.temperature) is type(layer.temperature)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="slow on JAX outside jit")
def test_the_example_of_the_docstring():
    bottleneck = GumbelSoftmax(num_codes=256, hard=True)
    assert bottleneck(keras.random.normal((2, 8, 8, 64)), training=True)["samples"].shape == (2, 8, 8, 1)
