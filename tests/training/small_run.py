"""A run with everything that a checkpoint must bring back, in a fraction of a second; also a program to be killed.

python small_run.py RUN_DIR STEPS INTERVAL prints "interval" when one begins, and "done" at the end.
"""

import sys

import keras
import numpy as np
from keras import layers, ops

from vq_keras.training.fit import fit, make_deterministic
from vq_keras.training.schedules import WarmupDecay


class RunningMean(layers.Layer):
    """Subtracts a mean that training moves without gradients, as codebook statistics are."""

    def build(self, shape):
        self.mean = self.add_weight(
            shape=(shape[-1],), initializer="zeros", trainable=False, dtype="float32", autocast=False
        )

    def call(self, x, training=None):
        if training:
            self.mean.assign(0.9 * self.mean + 0.1 * ops.mean(ops.cast(x, "float32"), axis=0))
        return x - ops.cast(self.mean, x.dtype)


def make_model(units=8, optimizer=None):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(units, activation="relu"),
            RunningMean(),
            layers.Dropout(0.3),
            layers.Dense(1),
        ]
    )
    schedule = WarmupDecay(peak=0.01, warmup_steps=10, total_steps=60)
    model.compile(optimizer or keras.optimizers.Adam(schedule), "mse", metrics=["mae"])
    return model


def batches(start):
    while True:
        x = np.random.default_rng(start).normal(size=(16, 4)).astype("float32")
        yield x, x[:, :1] * 2 + 1
        start += 1


def weights_of(model):
    return [np.array(np.asarray(variable)) for variable in (*model.variables, *model.optimizer.variables)]


class Announce(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        print("interval", flush=True)


if __name__ == "__main__":
    run_dir, steps, interval = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    make_deterministic(3)
    model = make_model()
    fit(model, batches, steps, run_dir, interval, callbacks=[Announce()])
    np.savez(f"{run_dir}/weights.npz", *weights_of(model))
    print("done", flush=True)
