"""Draws of codes with their probabilities: against numpy, their frequencies, gradients, masks and files."""

import keras
import numpy as np
import pytest
from contract import compiled_gradients
from harness import array, assert_same_state, call, state
from keras import ops
from numpy_codebook import nearest, squared_distances
from scipy import special, stats

from vq_keras.bottlenecks import CategoricalSamples, GroupedQuantizer, ProductQuantizer, Projected
from vq_keras.errors import InputError

GARBAGE = np.array([np.nan, np.inf, -np.inf, 1e38], "float32")
MASK = np.array([[True, True, False, True, False], [False, True, True, True, True]])
SHAPE = (2, 5, 4)
NEW = ("vectors", "log_probs", "log_priors")


def make(codes, **arguments):
    """A built layer with these codes."""
    layer = CategoricalSamples(codes.shape[-2], **{"num_samples": 3, "seed": 1, **arguments})
    layer.build((None, *codes.shape[::2]) if codes.ndim == 3 else (None, codes.shape[-1]))
    layer.codebook.set(codes)
    return layer


def log_q(latents, codes):
    distances = squared_distances(latents.reshape(-1, latents.shape[-1]), codes)
    return special.log_softmax(-distances / np.sqrt(codes.shape[-1]), axis=-1)


@pytest.fixture
def case(rng):
    return rng.normal(size=(6, 4)), rng.normal(size=SHAPE).astype("float32")


@pytest.mark.parametrize("training", [False, True])
def test_what_a_call_gives(training, case):
    codes, latents = case
    outputs = call(make(codes), latents, training=training)
    samples = outputs["samples"]
    assert samples.shape == (2, 5, 3)
    np.testing.assert_array_equal(outputs["codes"].ravel(), nearest(latents.reshape(-1, 4), codes))
    np.testing.assert_array_equal(outputs["vectors"], codes.astype("float32")[samples])
    expected = np.take_along_axis(log_q(latents, codes), samples.reshape(10, 3), axis=-1)
    np.testing.assert_allclose(outputs["log_probs"].reshape(10, 3), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(outputs["log_priors"], np.full((2, 5, 3), -np.log(6)), rtol=1e-6)
    chosen = samples[..., 0] if training else outputs["codes"]
    np.testing.assert_array_equal(outputs["quantized"], codes.astype("float32")[chosen])
    assert outputs["loss"] == 0


def test_decoding_the_codes_is_the_output_of_evaluation(case):
    codes, latents = case
    layer = make(codes)
    outputs = call(layer, latents, training=False)
    found = array(layer.encode(latents))
    np.testing.assert_array_equal(found, outputs["codes"])
    np.testing.assert_array_equal(array(layer.decode(found)), outputs["quantized"])
    assert not array(layer.decode([[-1]])).any()


@pytest.mark.parametrize("how", ["training", "evaluation", "sample"])
def test_the_frequencies_of_draws_are_q(how, rng):
    codes, latent = rng.normal(size=(5, 4)), rng.normal(size=4).astype("float32")
    layer, latents = make(codes), np.tile(latent, (60_000, 1))
    if how == "sample":
        samples = array(layer.sample(latents))
    else:
        samples = call(layer, latents, training=how == "training")["samples"]
    expected = np.exp(log_q(latent[None], codes)[0])
    assert expected.max() > 2 * expected.min()
    assert stats.chisquare(np.bincount(samples.ravel(), minlength=5), samples.size * expected).pvalue > 1e-3
    # The draws of a latent are independent, too: all pairs of the first two.
    pairs = np.bincount(samples[:, 0] * 5 + samples[:, 1], minlength=25)
    assert stats.chisquare(pairs, len(samples) * np.outer(expected, expected).ravel()).pvalue > 1e-3


def test_gradients_of_the_probabilities(case, rng):
    """d log q_k / d logits = [k] - q; logits_k has the slope 2 (e_k - x) / sqrt(dim) for x, and less that for e_k."""
    codes, latents = case
    upstream = rng.normal(size=(2, 5, 3)).astype("float32")
    samples = call(make(codes), latents, training=True)["samples"].reshape(10, 3)
    for_latents, [for_codes] = compiled_gradients(make(codes), latents, upstream, output="log_probs")
    q = np.exp(log_q(latents, codes))
    for_logits = (upstream.reshape(10, 3, 1) * (np.eye(6)[samples] - q[:, None])).sum(1)
    slopes = 2 * (codes - latents.reshape(10, 1, 4)) / np.sqrt(4)
    terms = for_logits[..., None] * slopes
    np.testing.assert_allclose(for_latents.reshape(10, 4), terms.sum(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(for_codes[0], -terms.sum(0), rtol=1e-4, atol=1e-5)


def test_vectors_let_gradients_through_to_their_codes_alone(case, rng):
    codes, latents = case
    upstream = rng.normal(size=(2, 5, 3, 4)).astype("float32")
    samples = call(make(codes), latents, training=True)["samples"]
    for_latents, [for_codes] = compiled_gradients(make(codes), latents, upstream, output="vectors")
    expected = np.zeros((6, 4))
    np.add.at(expected, samples.reshape(-1), upstream.reshape(-1, 4))
    np.testing.assert_allclose(for_codes[0], expected, rtol=1e-5, atol=1e-5)
    assert not for_latents.any()


def test_several_codebooks(rng):
    codes, latents = rng.normal(size=(2, 6, 4)), rng.normal(size=(3, 2, 4)).astype("float32")
    mask = np.array([True, False, True])
    outputs = call(make(codes, num_codebooks=2), latents, mask=mask, training=True)
    assert outputs["vectors"].shape == (3, 2, 3, 4)
    for name in ("samples", "vectors", "log_probs", "log_priors"):
        assert (outputs[name][1] == (-1 if name == "samples" else 0)).all()
    for book in range(2):
        samples = outputs["samples"][mask, book]
        np.testing.assert_array_equal(outputs["vectors"][mask, book], codes.astype("float32")[book][samples])
        expected = np.take_along_axis(log_q(latents[mask, book], codes[book]), samples, axis=-1)
        np.testing.assert_allclose(outputs["log_probs"][mask, book], expected, rtol=1e-5, atol=1e-5)


def test_codes_start_on_the_first_batch_and_nothing_else_moves_them(rng):
    layer = CategoricalSamples(6, num_samples=2, seed=1)
    latents = rng.normal(size=SHAPE).astype("float32")
    layer.build(SHAPE)
    start = state(layer)
    outputs = call(layer, latents, training=False)
    assert (array(layer.codebook.embeddings) == start["codebook/embeddings"]).all()
    outputs = call(layer, latents, training=True)
    embeddings = array(layer.codebook.embeddings)
    assert squared_distances(embeddings[0], latents.reshape(-1, 4)).min(-1).max() < 1e-12
    # What is drawn and scored is of the codes where they are from then on.
    np.testing.assert_array_equal(outputs["vectors"], embeddings[0][outputs["samples"]])
    expected = np.take_along_axis(log_q(latents, embeddings[0]), outputs["samples"].reshape(10, 2), axis=-1)
    np.testing.assert_allclose(outputs["log_probs"].reshape(10, 2), expected, rtol=1e-5, atol=1e-5)
    call(layer, rng.normal(size=SHAPE).astype("float32"), training=True)
    np.testing.assert_array_equal(array(layer.codebook.embeddings), embeddings)


def test_garbage_in_masked_positions_changes_nothing(case):
    codes, latents = case
    zeros = np.where(MASK[..., None], latents, 0).astype("float32")
    latents[~MASK] = GARBAGE
    layers = [CategoricalSamples(6, num_samples=3, seed=1) for _ in range(2)]
    first, second = (
        call(layer, x, mask=MASK, training=True) for layer, x in zip(layers, (latents, zeros), strict=True)
    )
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    assert_same_state(*map(state, layers))
    for name in ("quantized", *NEW):
        assert not first[name][~MASK].any()
        assert first[name][MASK].all()
    for name in ("codes", "samples"):
        np.testing.assert_array_equal((first[name].reshape(2, 5, -1) == -1).all(-1), ~MASK)
    for output in ("log_probs", "vectors"):
        upstream = np.ones(first[output].shape, "float32")
        ours, theirs = (
            compiled_gradients(make(codes), x, upstream, mask=MASK, output=output)[1][0] for x in (latents, zeros)
        )
        np.testing.assert_array_equal(ours, theirs)
        assert np.isfinite(ours).all()
        assert ours.any()


def test_latents_that_are_no_numbers(case):
    codes, latents = case
    latents[0, 1, 2], latents[1, 4, 0] = np.nan, np.inf
    broken = ~np.isfinite(latents).all(-1)
    outputs = call(make(codes), latents, training=True)
    for name in ("quantized", *NEW):
        np.testing.assert_array_equal(np.isnan(outputs[name]).reshape(2, 5, -1).all(-1), broken)
        np.testing.assert_array_equal(np.isnan(outputs[name]).reshape(2, 5, -1).any(-1), broken)
    np.testing.assert_array_equal((outputs["samples"] == -1).all(-1), broken)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_only_rounds_what_goes_in_and_out(policy, case):
    codes, latents = case
    latents = array(ops.cast(ops.cast(latents, "bfloat16"), "float32")).astype("float16").astype("float32")
    expected = call(make(codes), latents, training=True)
    keras.config.set_dtype_policy(policy)
    layer = make(codes)
    outputs = call(layer, latents, training=True)
    for name in ("codes", "samples", "log_probs", "log_priors"):
        np.testing.assert_array_equal(outputs[name], expected[name])
        assert outputs[name].dtype == expected[name].dtype
    for name in ("quantized", "vectors"):
        assert keras.backend.standardize_dtype(outputs[name].dtype) == layer.compute_dtype
        rounded = array(ops.cast(ops.cast(expected[name], layer.compute_dtype), "float32"))
        np.testing.assert_array_equal(outputs[name].astype("float32"), rounded)


def test_shapes_are_known_before_the_call():
    outputs = CategoricalSamples(6, num_samples=3)(keras.Input((5, 2, 4)))
    shapes = {name: output.shape[1:] for name, output in outputs.items()}
    drawn = dict.fromkeys(("samples", "log_probs", "log_priors"), (5, 2, 3))
    assert shapes == {"quantized": (5, 2, 4), "codes": (5, 2), "vectors": (5, 2, 3, 4), **drawn}


def test_an_empty_batch(case):
    outputs = call(make(case[0]), np.zeros((0, 5, 4), "float32"), training=True)
    assert outputs["vectors"].shape == (0, 5, 3, 4)
    assert outputs["log_probs"].shape == (0, 5, 3)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # The draws let none through.
def test_a_saved_model_computes_and_trains_the_same(tmp_path, rng):
    data = rng.normal(size=(12, 8, 6)).astype("float32")
    bottleneck = CategoricalSamples(16, num_samples=3, seed=4, name="bottleneck")
    inputs = keras.Input((8, 6))
    outputs = bottleneck(keras.layers.Dense(4)(inputs))
    model = keras.Model(inputs, {"x": keras.layers.Dense(6)(outputs["quantized"]), "codes": outputs["codes"]})
    model.compile("adam", {"x": "mse"})
    model.fit(data, {"x": data}, epochs=2, batch_size=4, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    again = loaded.get_layer("bottleneck")
    assert again.get_config() == bottleneck.get_config()
    assert_same_state(state(again), state(bottleneck))
    before, after = (each.predict(data, verbose=0) for each in (model, loaded))
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])
    for each in (model, loaded):
        each.fit(data, {"x": data}, epochs=1, batch_size=4, verbose=0, shuffle=False)
    assert_same_state(state(again), state(bottleneck))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: CategoricalSamples(1), "num_codes is 1"),
        (lambda: CategoricalSamples(8, num_samples=1), "num_samples is 1; the bound of many samples needs at least 2"),
        (lambda: Projected(CategoricalSamples(8), dim=2), "a CategoricalSamples cannot be a part of another"),
        (lambda: ProductQuantizer(CategoricalSamples(8, num_codebooks=2)), "cannot be a part of another"),
        (lambda: GroupedQuantizer([CategoricalSamples(8)]), "cannot be a part of another"),
    ],
)
def test_what_does_not_fit(make, message):
    with pytest.raises(InputError, match=message):
        make()
