"""Trains a bottleneck on one device and on two replicas that share each batch, and writes what became of its state.

python two_replicas.py OUTPUT.npz, a process of its own: TensorFlow splits a CPU only before its first operation. The
arrays are named CASE/one/VARIABLE, CASE/two/VARIABLE and, on TensorFlow, CASE/second/VARIABLE for the second
replica's copy.
"""

import os
import sys

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")

import keras
import numpy as np

from vq_keras.bottlenecks import get

CALM = {"restart_threshold": 0.0, "epsilon": 1e-5, "initializer": "normal", "seed": 1}
CASES = {
    "ema": ("vector_quantizer", {**CALM, "decay": 0.8}),
    "gradient": ("vector_quantizer", {**CALM, "update": "gradient"}),
    "samples": ("vector_quantizer", {**CALM, "initializer": "samples", "decay": 0.999999}),
    "kmeans": ("vector_quantizer", {**CALM, "initializer": "kmeans", "decay": 0.999999}),
    "restart": ("vector_quantizer", {**CALM, "restart_threshold": 0.5, "decay": 0.5}),
    "soft_em": ("soft_em", {**CALM, "restart_threshold": 0.5, "decay": 0.5}),
}
# Batches of 8 latents; with "uneven" the last has one, so that one replica gets none.
EVEN, UNEVEN = 24, 17


def latents(rows=EVEN):
    return (3 + np.random.default_rng(2).normal(size=(rows, 4))).astype("float32")


def masked(rows=EVEN):
    """Latents of which the second half of each batch, the second replica's share, is masked and no number."""
    values, mask = latents(rows), np.arange(rows) % 8 < 4
    values[~mask] = np.nan
    return values, mask


def train(name, arguments, values, mask=None):
    """The bottleneck after one epoch of a model that reconstructs the latents."""
    inputs = [keras.Input((4,))]
    bottleneck = get(name, num_codes=6, name="bottleneck", **arguments)
    if mask is None:
        outputs = bottleneck(inputs[0])["quantized"]
        model = keras.Model(inputs[0], outputs)
        data, loss = values, "mse"
    else:
        inputs.append(keras.Input((), dtype="bool"))
        outputs = bottleneck(inputs[0], mask=inputs[1])["quantized"]
        model = keras.Model(inputs, outputs)
        data, loss = [values, mask], "mse"
    model.compile(keras.optimizers.SGD(0.1), loss)
    model.fit(data, np.nan_to_num(values), batch_size=8, epochs=1, shuffle=False, verbose=0)
    return bottleneck


def arrays_of(bottleneck, prefix, read=keras.ops.convert_to_numpy):
    named = [v for v in bottleneck.variables if v.name in ("counts", "sums", "embeddings", "displacement")]
    return {f"{prefix}/{variable.name}": np.array(read(variable)) for variable in named}


def all_cases(backend):
    for case, (name, arguments) in CASES.items():
        yield case, name, arguments, latents(), None
        if backend == "tensorflow" and case != "gradient":  # JAX shards even batches only.
            yield f"{case}-uneven", name, arguments, latents(UNEVEN), None
        yield f"{case}-masked", name, arguments, *masked()


def on_tensorflow(results):
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for case, *arguments in all_cases("tensorflow"):
        results.update(arrays_of(train(*arguments), f"{case}/one"))
        with strategy.scope():
            bottleneck = train(*arguments)
        for replica, prefix in enumerate(("two", "second")):
            results.update(arrays_of(bottleneck, f"{case}/{prefix}", lambda v, r=replica: v.value.values[r].numpy()))


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
