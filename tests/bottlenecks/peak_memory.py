"""Prints by how many MB one large training step raises this process's peak memory.

python peak_memory.py BOTTLENECK. The step is forward and backward over 8,192 latents of 64 dimensions and 65,536
codes; one with 64 codes goes before, so that what the framework keeps for itself is not counted. The peak is Linux's
VmHWM: `resource.getrusage` starts at the peak of the process that forked this one.
"""

import pathlib
import re
import sys

import keras
import numpy as np

from vq_keras.bottlenecks import get


def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1000


def step(name, num_codes, latents):
    layer = get(name, num_codes=num_codes)
    layer.build(latents.shape)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        @tf.function
        def run(latents):
            with tf.GradientTape() as tape:
                tape.watch(latents)
                outputs = layer(latents, training=True)
                loss = tf.reduce_sum(outputs["quantized"] ** 2) + sum(layer.losses)
            return tape.gradient(loss, latents)

        np.asarray(run(tf.constant(latents)))
    else:
        import jax

        @jax.jit
        def run(others, latents):
            def loss(latents):
                outputs, state, losses = layer.stateless_call([], others, latents, training=True, return_losses=True)
                return (outputs["quantized"] ** 2).sum() + sum(losses), state

            return jax.grad(loss, has_aux=True)(latents)

        jax.block_until_ready(run([variable.value for variable in layer.non_trainable_variables], latents))


if __name__ == "__main__":
    latents = np.random.default_rng(0).normal(size=(8192, 64)).astype("float32")
    step(sys.argv[1], 64, latents)
    before = peak()
    step(sys.argv[1], 65_536, latents)
    print(f"{peak() - before:.0f}")
