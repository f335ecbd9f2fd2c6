"""Trains a bottleneck on one device and on two replicas that share each batch, and writes what became of its state.

python two_replicas.py OUTPUT.npz, a process of its own: TensorFlow splits a CPU only before its first operation. The
arrays are named CASE/one/VARIABLE, CASE/two/VARIABLE and, on TensorFlow, CASE/second/VARIABLE for the second
replica's copy; VARIABLE:1 is the second variable of that name, and so on.
"""

import os
import sys

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
os.environ.setdefault("NPROC", "8")  # see conftest.py

import keras
import numpy as np

from vq_keras.bottlenecks import get

CALM = {"restart_threshold": 0.0, "epsilon": 1e-5, "initializer": "normal", "seed": 1}
# Bottleneck, its arguments, and the learning rate of a linear encoder in front of it that begins as the identity.
CASES = {
    "averages": ("vector_quantizer", {**CALM, "decay": 0.8}, 0.0),
    "trained": ("vector_quantizer", {**CALM, "decay": 0.8}, 0.1),
    "gradient": ("vector_quantizer", {**CALM, "update": "gradient"}, 0.1),
    "samples": ("vector_quantizer", {**CALM, "initializer": "samples", "decay": 0.999999}, 0.0),
    "kmeans": ("vector_quantizer", {**CALM, "initializer": "kmeans", "decay": 0.999999}, 0.0),
    "restart": ("vector_quantizer", {**CALM, "restart_threshold": 0.5, "decay": 0.5}, 0.0),
    "soft_em": ("soft_em", {**CALM, "initializer": "samples", "restart_threshold": 0.5, "decay": 0.5}, 0.0),
}
# The other bottlenecks, without the variant that has masks: what they would show is shown above.
OTHERS = {
    "cosine": ("cosine", {**CALM, "decay": 0.8}, 0.1),
    "sim_vq": ("sim_vq", CALM, 0.1),
    "product": ("product", {**CALM, "num_codes": 9, "decay": 0.8}, 0.1),
    "residual": ("residual", {**CALM, "decay": 0.8}, 0.1),
    "finite_scalar": ("finite_scalar", {"num_codes": None, "levels": (5, 4, 3, 3)}, 1.0),
    "residual_finite_scalar": ("residual_finite_scalar", {"num_codes": None, "levels": (5, 4, 3, 3)}, 1.0),
    "lookup_free": ("lookup_free", {"num_codes": 16, "entropy_weight": 1.0, "temperature": 10.0}, 0.1),
    "random_projection": ("random_projection", {"seed": 1}, 0.1),
    "gumbel_softmax": ("gumbel_softmax", {"seed": 1}, 0.1),
    "hashing": ("semantic_hashing", {"num_codes": 8, "seed": 1}, 0.1),
    # Without noise, and with coins that all fall alike.
    "certain_hashing": (
        "semantic_hashing",
        {"num_codes": 8, "noise": 0.0, "discrete_mix": 1.0, "warmup_steps": 0},
        1.0,
    ),
}
# Batches of 8 latents; of an uneven number the last has one, so that one replica gets none.
EVEN, UNEVEN = 24, 17


def latents(rows=EVEN):
    return (3 + np.random.default_rng(2).normal(size=(rows, 4))).astype("float32")


def masked():
    """Latents of which the second half of each batch, the second replica's share, is masked and far away."""
    values, mask = latents(), np.arange(EVEN) % 8 < 4
    values[~mask] = 1e6
    return values, mask.astype("float32")


def train(name, arguments, learning_rate, values, mask=None):
    """A model's variables after one epoch of reconstructing the latents."""
    keras.utils.set_random_seed(0)
    inputs, places = keras.Input((4,)), keras.Input(())
    encoder = keras.layers.Dense(4, kernel_initializer="identity", name="encoder")
    bottleneck = get(name, **{"num_codes": 6, "name": "bottleneck", **arguments})
    quantized = bottleneck(encoder(inputs), mask=places)["quantized"]
    model = keras.Model([inputs, places], quantized)
    model.compile(keras.optimizers.SGD(learning_rate), "mse")
    mask = np.ones(len(values), "float32") if mask is None else mask
    # Masked outputs are zero, and so are their targets.
    model.fit([values, mask], values * mask[:, None], batch_size=8, epochs=1, shuffle=False, verbose=0)
    return model.weights


def arrays_of(variables, prefix, read=keras.ops.convert_to_numpy):
    arrays = {}
    for variable in variables:
        same = sum(name.rpartition("/")[2].split(":")[0] == variable.name for name in arrays)
        arrays[f"{prefix}/{variable.name}" + f":{same}" * (same > 0)] = np.array(read(variable))
    return arrays


def all_cases(backend):
    for case, arguments in {**CASES, **OTHERS}.items():
        yield case, *arguments, latents()
        if case in CASES:
            yield f"{case}-masked", *arguments, *masked()
        if backend == "tensorflow":  # JAX shards even batches only.
            yield f"{case}-uneven", *arguments, latents(UNEVEN)


def on_tensorflow(results):
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for case, *arguments in all_cases("tensorflow"):
        results.update(arrays_of(train(*arguments), f"{case}/one"))
        with strategy.scope():
            variables = train(*arguments)
        for replica, prefix in enumerate(("two", "second")):
            results.update(arrays_of(variables, f"{case}/{prefix}", lambda v, r=replica: v.value.values[r].numpy()))


def on_jax(results):
    for case, *arguments in all_cases("jax"):
        results.update(arrays_of(train(*arguments), f"{case}/one"))
        keras.distribution.set_distribution(keras.distribution.DataParallel())
        results.update(arrays_of(train(*arguments), f"{case}/two"))
        keras.distribution.set_distribution(None)


if __name__ == "__main__":
    results = {}
    (on_tensorflow if keras.backend.backend() == "tensorflow" else on_jax)(results)
    np.savez(sys.argv[1], **results)
