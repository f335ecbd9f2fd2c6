"""Semantic hashing: bits, noise, coins and vectors against numpy, its warm-up, masks and files."""

import keras
import numpy as np
import pytest
from harness import BACKEND, array, assert_same_state, assert_training_goes_on_after_loading, call, gradients, state
from hypothesis import given, settings
from hypothesis.extra import numpy as npst
from keras import ops

from vq_keras.bottlenecks.semantic_hashing import SemanticHashing, saturating_sigmoid
from vq_keras.errors import InputError

GARBAGE = np.array([np.nan, np.inf, -np.inf], "float32")
MASK = np.array([[True, True, False, True, False], [False, True, True, True, True]])
SHAPE = (2, 5, 3)
LN_11 = 2.397896


def make(dim=3, transparent=True, **arguments):
    """A built layer; a transparent one has latents of a dimension for each bit, and its vectors are the bits."""
    layer = SemanticHashing(**{"num_codes": 2**dim, "warmup_steps": 0, "seed": 1, **arguments})
    layer.build((None, dim))
    if transparent:
        for name in ("to_bits", "from_ones", "hidden", "to_latents"):
            getattr(layer, name).kernel.assign(np.eye(dim))
        layer.from_zeros.kernel.assign(np.zeros((dim, dim)))
    return layer


def draws(num_latents, num_examples, num_bits=3, noise=0.5, seed=1):
    """The noise and the coins' uniform numbers of a first step of a layer with this seed."""
    generator = keras.random.SeedGenerator(seed)
    values = keras.random.truncated_normal((num_latents, 1, num_bits), stddev=noise, seed=generator)
    return array(values)[:, 0], array(keras.random.uniform((num_examples,), seed=generator))


def sigmoid(v):
    return 1 / (1 + np.exp(-v.astype("float64")))


def relaxed(v):
    return np.clip(1.2 * sigmoid(v) - 0.1, 0, 1)


def vectors(layer, c):
    """The network from bits to vectors once more."""
    weights = {name: value.astype("float64") for name, value in state(layer).items() if "/" in name}

    def dense(name, inputs):
        return inputs @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]

    hidden = np.maximum(dense("from_ones", c) + dense("from_zeros", 1 - c), 0)
    return dense("to_latents", np.maximum(dense("hidden", hidden), 0))


def test_the_saturating_sigmoid():
    values = np.array([0, LN_11, 30, 1e4, -LN_11, -30, -1e4, 2.3, -2.3, 1], "float32")
    found = array(saturating_sigmoid(ops.convert_to_tensor(values)))
    np.testing.assert_allclose(found, [0.5, 1, 1, 1, 0, 0, 0, 0.990653, 0.009347, 0.777270], atol=2e-6)
    assert found[0] == 0.5
    assert ((found == 0) | (found == 1))[1:7].all()
    assert ((found > 0) & (found < 1))[7:].all()


def test_bits_are_little_endian():
    layer = make()
    latents = np.array([[3, -3, -3], [-3, 3, -3], [-3, -3, 3], [3, 3, 3], [-3, -3, -3]], "float32")
    np.testing.assert_array_equal(array(layer.encode(latents)), [1, 2, 4, 7, 0])
    np.testing.assert_array_equal(array(layer.decode([7, 6, 0])), [[1, 1, 1], [0, 1, 1], [0, 0, 0]])


def test_every_code_comes_back():
    layer = make(dim=10)

    @given(npst.arrays("int32", (6,), elements={"min_value": -1, "max_value": 1023}))
    @settings(max_examples=15, deadline=None)
    def check(codes):
        bits = array(layer.decode(codes))
        np.testing.assert_array_equal(bits[:, 3], (codes >= 0) & (codes // 8 % 2 == 1))
        np.testing.assert_array_equal(array(layer.encode(4 * bits - 2)), np.maximum(codes, 0))

    check()


def test_training_is_numpys_with_the_same_draws(rng):
    """Three examples of four latents: bits for those whose coin says so, values in between for the others."""
    layer = make(dim=6, transparent=False, num_codes=8, hidden_dim=5, discrete_mix=0.5, seed=2)
    latents = rng.normal(size=(8, 4, 6)).astype("float32")
    outputs = call(layer, latents, training=True)
    noise, uniforms = draws(32, 8, seed=2)
    assert 0 < (uniforms < 0.5).sum() < 8
    assert abs(noise).max() <= 1  # Two standard deviations.
    weights = state(layer)
    y = relaxed(latents.reshape(-1, 6) @ weights["to_bits/kernel"] + weights["to_bits/bias"] + noise)
    d = (y > 0.5).astype("float64")
    c = np.where(np.repeat(uniforms < 0.5, 4)[:, None], d, y)
    np.testing.assert_allclose(outputs["quantized"].reshape(-1, 6), vectors(layer, c), atol=1e-5)
    np.testing.assert_array_equal(outputs["codes"].reshape(-1), d @ [1, 2, 4])
    np.testing.assert_array_equal(outputs["samples"][..., 0], outputs["codes"])
    assert outputs["loss"] == 0


def test_evaluation_takes_bits_without_noise(rng):
    layer = make(dim=6, transparent=False, num_codes=8, hidden_dim=5)
    latents = rng.normal(size=(2, 4, 6)).astype("float32")
    before, outputs = state(layer), call(layer, latents, training=False)
    d = (latents @ before["to_bits/kernel"] > 0).astype("float64")
    np.testing.assert_array_equal(outputs["codes"], d @ [1, 2, 4])
    np.testing.assert_allclose(outputs["quantized"], vectors(layer, d), atol=1e-5)
    np.testing.assert_array_equal(array(layer.encode(latents)), outputs["codes"])
    np.testing.assert_array_equal(array(layer.decode(outputs["codes"])), outputs["quantized"])
    assert_same_state(state(layer), before)
    mean = array(layer.decode_samples(np.array([[3, 3, 5, 0]])))[0]
    np.testing.assert_allclose(
        mean, vectors(layer, np.array([[1, 1, 0], [1, 1, 0], [1, 0, 1], [0, 0, 0.0]])).mean(0), atol=1e-5
    )
    assert not array(layer.decode([-1])).any()


@pytest.mark.parametrize("steps, share", [(0, 0.005), (50, 0.05), (100, 0.5), (1000, 0.5)])
def test_the_share_of_examples_with_bits_rises(steps, share, rng, warming):
    warming.steps.assign(steps)
    number = 20_000
    outputs = call(warming, rng.uniform(-1, 1, size=(number, 2, 3)).astype("float32"), training=True)
    # |v| < 2, where nothing is saturated: only bits are whole numbers.
    whole = np.isin(outputs["quantized"], [0, 1])
    of_examples = whole.all((1, 2))
    np.testing.assert_array_equal(whole.any((1, 2)), of_examples)
    assert of_examples.mean() == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / number))
    assert array(warming.steps) == steps + 1


@pytest.fixture(scope="module")
def warming():
    return make(warmup_steps=100)


@pytest.mark.parametrize("discrete_mix", [0.0, 1.0])
def test_bits_have_the_gradient_of_the_values_in_between(discrete_mix, rng):
    latents, upstream = 2 * rng.normal(size=SHAPE).astype("float32"), rng.normal(size=SHAPE).astype("float32")
    for_latents, _ = gradients(make(discrete_mix=discrete_mix, noise=0.0), latents, upstream)
    slope = 1.2 * sigmoid(latents) * (1 - sigmoid(latents)) * (abs(latents) < LN_11)
    # The vectors' own network passes on what is above zero: with bits, those that are 1.
    passed = (latents > 0) if discrete_mix else (relaxed(latents) > 0)
    np.testing.assert_allclose(for_latents, upstream * slope * passed, atol=1e-6)
    assert 0 < (slope == 0).sum() < slope.size


def test_garbage_in_masked_positions_changes_nothing(rng):
    latents, upstream = rng.normal(size=SHAPE).astype("float32"), rng.normal(size=SHAPE).astype("float32")
    zeros = np.where(MASK[..., None], latents, 0).astype("float32")
    latents[~MASK] = GARBAGE
    layers = [make(), make()]
    first, second = (
        call(layer, x, mask=MASK, training=True) for layer, x in zip(layers, (latents, zeros), strict=True)
    )
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    assert_same_state(*map(state, layers))
    assert not first["quantized"][~MASK].any()
    for name in ("codes", "samples"):
        np.testing.assert_array_equal(first[name].reshape(2, 5) == -1, ~MASK)
    garbage, clean = (gradients(make(), x, upstream, mask=MASK) for x in (latents, zeros))
    assert not garbage[0][~MASK].any()
    for ours, theirs in zip([garbage[0], *garbage[1]], [clean[0], *clean[1]], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # Nothing of masked positions reaches a weight, either.
    for gradient in gradients(make(), zeros, np.where(MASK[..., None], 0, upstream).astype("float32"), mask=MASK)[1]:
        assert not gradient.any()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_only_rounds_what_goes_in_and_out(policy, rng):
    latents = array(ops.cast(ops.cast(rng.normal(size=SHAPE), "bfloat16"), "float32"))
    full = make(transparent=False)
    expected = call(full, latents, training=True)
    keras.config.set_dtype_policy(policy)
    layer = make(transparent=False)
    for ours, theirs in zip(layer.trainable_variables, full.trainable_variables, strict=True):
        ours.assign(array(theirs))
        assert ours.dtype == "float32"
    outputs = call(layer, latents, training=True)
    assert keras.backend.standardize_dtype(outputs["quantized"].dtype) == layer.compute_dtype
    np.testing.assert_array_equal(outputs["codes"], expected["codes"])
    rounded = array(ops.cast(ops.cast(expected["quantized"], layer.compute_dtype), "float32"))
    np.testing.assert_array_equal(outputs["quantized"].astype("float32"), rounded)


def test_a_frozen_layer_counts_no_steps(rng):
    layer = make()
    before = state(layer)
    layer.trainable = False
    call(layer, rng.normal(size=SHAPE).astype("float32"), training=True)
    assert_same_state(
        *({k: v for k, v in each.items() if k != "seed_generator_state"} for each in (state(layer), before))
    )


def test_sampling_is_the_draw_of_training(rng):
    layer, twin = make(), make()
    latents = rng.normal(size=SHAPE).astype("float32")
    samples = array(layer.sample(latents))
    np.testing.assert_array_equal(samples, call(twin, latents, training=True)["samples"])
    assert (array(layer.sample(latents)) != samples).any()


def test_an_empty_batch():
    outputs = call(make(), np.zeros((0, 5, 3), "float32"), training=True)
    assert (outputs["quantized"].shape, outputs["codes"].shape) == ((0, 5, 3), (0, 5))


def test_a_saved_model_computes_and_trains_the_same(tmp_path, rng):
    bottleneck = SemanticHashing(16, warmup_steps=4, hidden_dim=7, seed=4, name="bottleneck")
    assert_training_goes_on_after_loading(bottleneck, rng, tmp_path)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_codes": 1}, "num_codes is 1"),
        ({"num_codes": 12}, "num_codes is 12; codes made of bits need a power of two"),
        ({"noise": -0.1}, "noise is -0.1"),
        ({"noise": float("nan")}, "noise is nan"),
        ({"discrete_mix": 1.1}, "discrete_mix is 1.1; give a probability"),
        ({"warmup_steps": -1}, "warmup_steps is -1"),
        ({"hidden_dim": 0}, "hidden_dim is 0"),
    ],
)
def test_arguments_outside_their_range(arguments, message):
    with pytest.raises(InputError, match=message):
        SemanticHashing(**{"num_codes": 8, **arguments})


def test_the_configuration_makes_the_same_bottleneck():
    layer = SemanticHashing(8, noise=0.1, discrete_mix=0.3, warmup_steps=9, hidden_dim=4, seed=3)
    assert keras.layers.deserialize(keras.layers.serialize(layer)).get_config() == layer.get_config()


@pytest.mark.skipif(BACKEND != "tensorflow", reason="slow on JAX outside jit")
def test_the_example_of_the_docstring():
    bottleneck = SemanticHashing(num_codes=256)
    assert bottleneck(keras.random.normal((2, 8, 8, 64)), training=True)["codes"].shape == (2, 8, 8)
