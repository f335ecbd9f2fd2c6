"""What the tests of bottlenecks share: layers in a known state, steps as numpy arrays, gradients on either backend."""

import functools

import keras
import numpy as np
from keras import ops

from vq_keras.bottlenecks import VectorQuantizer

BACKEND = keras.backend.backend()


def make(embeddings, kind=VectorQuantizer, counts=None, **arguments):
    """A built bottleneck with these embeddings; without smoothing and restarts unless asked for."""
    embeddings = np.asarray(embeddings, "float32")
    num_codebooks = 1 if embeddings.ndim == 2 else len(embeddings)
    defaults = {"num_codebooks": num_codebooks, "epsilon": 0.0, "restart_threshold": 0.0, "seed": 1}
    layer = kind(embeddings.shape[-2], **{**defaults, **arguments})
    layer.build((None, embeddings.shape[-1]) if num_codebooks == 1 else (None, *embeddings.shape[::2]))
    layer.codebook.set(embeddings, counts)
    return layer


def array(tensor):
    return np.array(ops.convert_to_numpy(ops.convert_to_tensor(tensor)))


def call(layer, latents, mask=None, training=None):
    """The outputs of a call as arrays, with the sum of its losses as "loss"."""
    if BACKEND == "jax":
        outputs, losses = _compiled_on_jax(layer, training, layer.trainable)(latents, mask)
    else:
        outputs, losses = layer(latents, mask=mask, training=training), layer.losses
    return {**{name: array(value) for name, value in outputs.items()}, "loss": float(sum(losses))}


def state(layer):
    """Every variable as an array, by its path without the layer's own name."""
    return {variable.path.partition("/")[2]: array(variable) for variable in layer.variables}


def assert_same_state(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def assert_training_goes_on_after_loading(bottleneck, rng, folder):
    """A model with a layer named "bottleneck" of counted steps, trained and saved, computes and trains the same when
    loaded. Returns that layer of the loaded one."""
    data = rng.normal(size=(12, 8, 6)).astype("float32")
    inputs = keras.Input((8, 6))
    outputs = bottleneck(keras.layers.Dense(4)(inputs))
    model = keras.Model(inputs, {"x": keras.layers.Dense(6)(outputs["quantized"]), "codes": outputs["codes"]})
    model.compile("adam", {"x": "mse"})
    model.fit(data, {"x": data}, epochs=2, batch_size=4, verbose=0, shuffle=False)
    model.save(folder / "model.keras")
    loaded = keras.models.load_model(folder / "model.keras")
    again = loaded.get_layer("bottleneck")
    assert again.get_config() == bottleneck.get_config()
    assert array(again.steps) == 6
    before, after = (each.predict(data, verbose=0) for each in (model, loaded))
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])

    # Keras's files hold no states of random generators; with those, too, training goes on to the same numbers.
    for ours, theirs in zip(loaded.variables, model.variables, strict=True):
        ours.assign(array(theirs))
    for each in (model, loaded):
        each.fit(data, {"x": data}, epochs=1, batch_size=4, verbose=0, shuffle=False)
    assert_same_state(state(again), state(bottleneck))
    return again


def embeddings_of(layer):
    return array(layer.codebook.embeddings)


def compiled(layer, training=True, jit_compile=False):
    """A function latents -> outputs, compiled, that moves the layer's state."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(lambda latents: layer(latents, training=training), jit_compile=jit_compile)
    run = _compiled_on_jax(layer, training, layer.trainable)
    return lambda latents: run(latents)[0]


@functools.lru_cache(maxsize=4)
def _compiled_on_jax(layer, training, trainable):  # What it compiles depends on `trainable`, too.
    """A function (latents, mask) -> (outputs, losses); uncompiled, JAX compiles each operation for each shape."""
    import jax

    @jax.jit
    def run(trainable, others, latents, mask):
        return layer.stateless_call(trainable, others, latents, mask=mask, training=training, return_losses=True)

    def step(latents, mask=None):
        if not layer.built:
            layer.build(latents.shape)
        values = [
            [variable.value for variable in group]
            for group in (layer.trainable_variables, layer.non_trainable_variables)
        ]
        outputs, others, losses = run(*values, latents, mask)
        for variable, value in zip(layer.non_trainable_variables, others, strict=True):
            variable.assign(value)
        return outputs, losses

    return step


def gradients(layer, latents, upstream=None, output="quantized", **arguments):
    """Gradients of sum(upstream * output), or without upstream of the layer's losses, in training.

    Returns:
        The gradient for the latents, and a list of those for the trainable variables (None for no connection; zeros
        for the latents).
    """

    def objective(outputs, losses):
        return sum(losses) if upstream is None else ops.sum(outputs[output] * upstream)

    if BACKEND == "tensorflow":
        import tensorflow as tf

        latents = tf.constant(latents)
        with tf.GradientTape() as tape:
            tape.watch(latents)
            outputs = layer(latents, training=True, **arguments)
            value = objective(outputs, layer.losses)
        variables = [variable.value for variable in layer.trainable_variables]
        for_latents, for_variables = tape.gradient(value, (latents, variables))
        for_latents = array(ops.zeros_like(latents) if for_latents is None else for_latents)
        return for_latents, [None if each is None else array(each) for each in for_variables]
    import jax

    def loss(trainable, latents):
        others = [variable.value for variable in layer.non_trainable_variables]
        outputs, _, losses = layer.stateless_call(
            trainable, others, latents, training=True, return_losses=True, **arguments
        )
        return objective(outputs, losses)

    trainable = [variable.value for variable in layer.trainable_variables]
    for_variables, for_latents = jax.grad(loss, argnums=(0, 1))(trainable, ops.convert_to_tensor(latents))
    return array(for_latents), [array(each) for each in for_variables]
