"""Half precision, compilation, several codebooks, files, and decoding what was encoded."""

import keras
import numpy as np
import pytest
from harness import BACKEND, array, assert_same_state, call, compiled, embeddings_of, make, state
from keras import ops

from vq_keras.bottlenecks import SoftEM, VectorQuantizer, assignment

KINDS = pytest.mark.parametrize("kind", [VectorQuantizer, SoftEM])


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_does_not_reach_the_codebook(policy, rng):
    """600 steps with constant counts of 4,096: averages kept in half precision stop near 3,424 and 3,994."""
    keras.config.set_dtype_policy(policy)
    layer = make(rng.normal(size=(2, 2)), decay=0.99)
    half = layer.compute_dtype
    latents = ops.cast(np.tile(embeddings_of(layer)[0, :1], (4096, 1)), half)
    step = compiled(layer)
    for _ in range(600):
        outputs = step(latents)
    assert array(layer.codebook.counts)[0, 0] == pytest.approx(4096 - 4095 * 0.99**600, rel=2e-5)
    assert keras.backend.standardize_dtype(outputs["quantized"].dtype) == half
    assert all(variable.dtype == "float32" for variable in layer.weights)


@KINDS
@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_half_precision_only_rounds_what_goes_in_and_out(kind, update, rng):
    if kind is SoftEM and update == "gradient":
        pytest.skip("soft EM has moving averages only")
    codes = rng.normal(size=(9, 4))
    latents = array(ops.cast(ops.cast(rng.normal(size=(40, 4)), "bfloat16"), "float32"))
    full = make(codes, kind=kind, update=update)
    keras.config.set_dtype_policy("mixed_bfloat16")
    half = make(codes, kind=kind, update=update)
    for _ in range(3):
        expected, outputs = (call(layer, latents, training=True) for layer in (full, half))
        np.testing.assert_array_equal(outputs["samples"], expected["samples"])
        rounded = array(ops.cast(ops.cast(expected["quantized"], "bfloat16"), "float32"))
        np.testing.assert_array_equal(outputs["quantized"].astype("float32"), rounded)
        assert outputs["loss"] == expected["loss"]
    assert_same_state(state(half), state(full))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="on JAX every compiled step is XLA's")
@KINDS
def test_xla_computes_the_same(kind, rng, monkeypatch):
    """In chunks, with masks' and restarts' operations in the graph; soft EM draws other numbers under XLA."""
    monkeypatch.setattr(assignment, "MAX_DISTANCES", 200)
    codes = 30 * rng.normal(size=(9, 4)) if kind is SoftEM else rng.normal(size=(9, 4))
    plain, xla = (make(codes, kind=kind, restart_threshold=1e-9, epsilon=1e-5) for _ in range(2))
    steps = compiled(plain), compiled(xla, jit_compile=True)
    for _ in range(3):
        latents = (codes[rng.integers(0, 9, size=50)] + 0.1 * rng.normal(size=(50, 4))).astype("float32")
        first, second = (step(latents) for step in steps)
        np.testing.assert_array_equal(array(first["samples"]), array(second["samples"]))
        np.testing.assert_allclose(array(first["quantized"]), array(second["quantized"]), rtol=1e-5, atol=1e-5)
    for part in ("counts", "sums", "embeddings"):
        ours, theirs = (array(getattr(layer.codebook, part)) for layer in (xla, plain))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_several_codebooks_are_as_many_bottlenecks(update, rng):
    codes = rng.normal(size=(3, 6, 4))
    arguments = {"update": update, "decay": 0.7, "epsilon": 1e-5}
    together, apart = make(codes, **arguments), [make(each, **arguments) for each in codes]
    for _ in range(3):
        latents = rng.normal(size=(2, 5, 3, 4)).astype("float32")
        outputs = call(together, latents, training=True)
        each = [call(layer, latents[:, :, book], training=True) for book, layer in enumerate(apart)]
        for name in ("codes", "samples", "quantized"):
            np.testing.assert_array_equal(outputs[name], np.stack([one[name] for one in each], axis=2))
        assert outputs["loss"] == pytest.approx(np.mean([one["loss"] for one in each]), rel=1e-6)
    for book, layer in enumerate(apart):
        np.testing.assert_allclose(embeddings_of(together)[book], embeddings_of(layer)[0], rtol=1e-6, atol=1e-7)


@KINDS
@pytest.mark.parametrize("num_codebooks", [1, 3])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_decoding_the_codes_is_the_output_of_evaluation(kind, num_codebooks, policy, rng):
    keras.config.set_dtype_policy(policy)
    codes = rng.normal(size=(num_codebooks, 6, 4))
    layer = make(codes if num_codebooks > 1 else codes[0], kind=kind)
    latents = rng.normal(size=(2, 5, *([3] if num_codebooks > 1 else []), 4)).astype("float32")
    outputs = call(layer, latents, training=False)
    found = layer.encode(latents)
    np.testing.assert_array_equal(array(found), outputs["codes"])
    np.testing.assert_array_equal(array(layer.decode(found)), outputs["quantized"])
    np.testing.assert_array_equal(array(layer.decode(array(found).tolist())), outputs["quantized"])
    np.testing.assert_array_equal(array(layer.decode_samples(outputs["samples"])), outputs["quantized"])


def small_model(bottleneck):
    """A model with the bottleneck inside, and its codes as a second output."""
    inputs = keras.Input((8, 6))
    outputs = bottleneck(keras.layers.Dense(4)(inputs))
    return keras.Model(
        inputs, {"reconstruction": keras.layers.Dense(6)(outputs["quantized"]), "codes": outputs["codes"]}
    )


@pytest.mark.parametrize(
    "make_bottleneck",
    [
        lambda: VectorQuantizer(16, decay=0.9, commitment_weight=0.3, seed=4, name="bottleneck"),
        lambda: VectorQuantizer(16, update="gradient", codebook_weight=0.5, initializer="kmeans", name="bottleneck"),
        lambda: SoftEM(16, num_samples=3, temperature=0.5, epsilon=1e-3, seed=4, name="bottleneck"),
    ],
    ids=["ema", "gradient", "soft_em"],
)
def test_a_saved_model_computes_and_trains_the_same(make_bottleneck, tmp_path, rng):
    data = rng.normal(size=(12, 8, 6)).astype("float32")
    model = small_model(make_bottleneck())
    model.compile("adam", {"reconstruction": "mse"})
    model.fit(data, {"reconstruction": data}, epochs=2, batch_size=4, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")

    bottleneck, again = (each.get_layer("bottleneck") for each in (model, loaded))
    assert again.get_config() == bottleneck.get_config()
    for ours, theirs in zip(again.weights, bottleneck.weights, strict=True):
        np.testing.assert_array_equal(array(ours), array(theirs))
    before, after = (each.predict(data, verbose=0) for each in (model, loaded))
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])

    assert_same_state(state(again), state(bottleneck))
    for each in (model, loaded):
        each.fit(data, {"reconstruction": data}, epochs=2, batch_size=4, verbose=0, shuffle=False)
    assert_same_state(state(again), state(bottleneck))
