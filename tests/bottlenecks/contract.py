"""What holds for every bottleneck, whatever it does inside; `make` builds one, the same one every time."""

import keras
import numpy as np
from harness import BACKEND, array, assert_same_state, call, gradients, state
from keras import ops

# JAX compiles every new layer.
EXAMPLES = 20 if BACKEND == "tensorflow" else 5
GARBAGE = np.array([np.nan, np.inf, -np.inf, 1e38], "float32")


def built(make, shape):
    keras.utils.set_random_seed(3)
    layer = make()
    layer.build((None, *shape[1:]))
    return layer


def assert_garbage_equals_absence(make, latents, mask, books=0):
    """Outputs, loss, gradients and state of masked latents against those of the others alone.

    Args:
        books: how many axes of the codes follow those of the mask.
    """
    latents = latents.copy()
    latents[~mask] = np.resize(GARBAGE, latents[~mask].shape)
    masked, packed = built(make, latents.shape), built(make, latents[mask].shape)
    ours, theirs = (
        call(layer, values, mask=given, training=True)
        for layer, values, given in ((masked, latents, mask), (packed, latents[mask], None))
    )
    for name in ("codes", "samples"):
        np.testing.assert_array_equal(ours[name][mask], theirs[name])
        assert (ours[name][~mask] == -1).all()
        assert ours[name].ndim == mask.ndim + books + (name == "samples")
    np.testing.assert_allclose(ours["quantized"][mask], theirs["quantized"], rtol=1e-5, atol=1e-6)
    assert (ours["quantized"][~mask] == 0).all()
    # Sums of other lengths are added up in another order.
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-5, atol=1e-6)
    moved, moved_alone = state(masked), state(packed)
    assert moved.keys() == moved_alone.keys()
    for name in moved:
        np.testing.assert_allclose(moved[name], moved_alone[name], rtol=1e-5, atol=1e-6, err_msg=name)
    for_masked, for_weights = compiled_gradients(masked, latents, np.ones_like(latents), mask)
    for_packed, for_weights_alone = compiled_gradients(packed, latents[mask], np.ones_like(latents[mask]))
    assert (for_masked[~mask] == 0).all()
    np.testing.assert_allclose(for_masked[mask], for_packed, rtol=1e-4, atol=1e-5)
    for one, other in zip(for_weights, for_weights_alone, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert np.isfinite(one).all()
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def compiled_gradients(layer, latents, upstream=None, mask=None, output="quantized"):
    """As `gradients`, but compiled on JAX, where each uncompiled operation is compiled alone and takes longer."""
    if BACKEND != "jax":
        return gradients(layer, latents, upstream, output, mask=mask)
    import jax

    others = [variable.value for variable in layer.non_trainable_variables]

    def objective(trainable, latents):
        outputs, _, losses = layer.stateless_call(
            trainable, others, latents, mask=mask, training=True, return_losses=True
        )
        return sum(losses) if upstream is None else ops.sum(outputs[output] * upstream)

    values = [variable.value for variable in layer.trainable_variables]
    for_weights, for_latents = jax.jit(jax.grad(objective, argnums=(0, 1)))(values, latents)
    return array(for_latents), [array(each) for each in for_weights]


def assert_half_precision_rounds_only_what_goes_in_and_out(make, latents, policy, rtol=0.0):
    half = policy.removeprefix("mixed_")
    latents = array(ops.cast(ops.cast(latents, half), "float32"))
    full = built(make, latents.shape)
    keras.config.set_dtype_policy(policy)
    layer = built(make, latents.shape)
    expected, outputs = call(full, latents, training=True), call(layer, latents, training=True)
    assert keras.backend.standardize_dtype(outputs["quantized"].dtype) == half
    assert all(variable.dtype == "float32" for variable in layer.weights)
    for name in ("codes", "samples"):
        np.testing.assert_array_equal(outputs[name], expected[name])
    rounded = array(ops.cast(ops.cast(expected["quantized"], half), "float32"))
    np.testing.assert_allclose(outputs["quantized"].astype("float32"), rounded, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(outputs["loss"], expected["loss"], rtol=1e-6)
    assert_same_state(state(layer), state(full))


def assert_decoding_is_evaluation(layer, latents, rtol=0.0):
    """To the last bit, but where a compiled and an uncompiled matrix product may be added up in another order."""
    outputs = call(layer, latents, training=False)
    codes = array(layer.encode(latents))
    np.testing.assert_array_equal(codes, outputs["codes"])
    for decoded in (layer.decode(codes), layer.decode(codes.tolist()), layer.decode_samples(outputs["samples"])):
        np.testing.assert_allclose(
            array(decoded).astype("float32"), outputs["quantized"].astype("float32"), rtol=rtol, atol=rtol
        )
    assert not array(layer.decode(np.full_like(codes, -1))).any()


def assert_saved_model_computes_the_same(bottleneck, tmp_path, width):
    inputs = keras.Input((6, 5))
    outputs = bottleneck(keras.layers.Dense(width, name="encoder")(inputs))
    reconstruction = keras.layers.Dense(5, name="decoder")(outputs["quantized"])
    model = keras.Model(inputs, {"reconstruction": reconstruction, "codes": outputs["codes"]})
    model.compile("adam", {"reconstruction": "mse"}, jit_compile=BACKEND == "jax")
    data = np.random.default_rng(2).normal(size=(8, 6, 5)).astype("float32")
    model.fit(data, {"reconstruction": data}, batch_size=4, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    again = loaded.get_layer(bottleneck.name)
    assert type(again) is type(bottleneck)
    assert again.get_config() == bottleneck.get_config()
    for ours, theirs in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(array(ours), array(theirs))
    before, after = (each.predict(data, verbose=0) for each in (model, loaded))
    for name in before:
        np.testing.assert_array_equal(after[name], before[name])
