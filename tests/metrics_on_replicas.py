"""Metrics of one device and of two replicas that share each batch, written as JSON.

python metrics_on_replicas.py OUTPUT.json, a process of its own: TensorFlow splits a CPU only before its first
operation. CASE/one and CASE/two are lists of figures by name: for the codes after each step and each epoch, for the
image model after an epoch of training and an evaluation. CASE/outside is of metrics that are updated in the strategy's
scope and not in a step.
"""

import json
import os
import sys

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
os.environ.setdefault("NPROC", "8")  # see conftest.py

import keras
import numpy as np
from keras import ops

from vq_keras.bottlenecks import get
from vq_keras.metrics import CodebookDistance, CodesInUse, LargestShare, Perplexity, squared_distances
from vq_keras.models.image import ImageAutoencoder
from vq_keras.priors import ImageTransformer

NUM_CODES = 6
# Batches of 8 examples; of an uneven number the last has one, so that one replica gets none.
EVEN, UNEVEN = 24, 17


def latents(rows):
    """Codes are the whole numbers next to them, -1 for a masked one. The replicas' halves use different codes."""
    rng = np.random.default_rng(0)
    second = np.arange(rows) % 8 >= 4
    codes = rng.integers(-1, 3, (rows, 3)) + 3 * second[:, None]
    return (codes + rng.uniform(-0.4, 0.4, (rows, 3))).astype("float32")


class Rounding(keras.Model):
    """Its codes are its rounded inputs."""

    def __init__(self):
        super().__init__()
        self.usage = [each(NUM_CODES) for each in (Perplexity, CodesInUse, LargestShare)]
        self.distance = CodebookDistance()
        self.unused = self.add_weight(shape=(), initializer="zeros")

    def call(self, x):
        codes = ops.cast(ops.round(x), "int32")
        return {"codes": codes, "distances": squared_distances(x[..., None], ops.round(x)[..., None])}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return 0.0 * self.unused

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        for metric in self.usage:
            metric.update_state(y_pred["codes"])
        self.distance.update_state(y_pred["distances"], y_pred["codes"])
        return self.get_metrics_result()


class Steps(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.logs = []

    def on_train_batch_end(self, batch, logs=None):
        self.logs.append({name: float(value) for name, value in logs.items()})


def of_codes(rows):
    model, steps = Rounding(), Steps()
    model.compile("sgd")
    values = latents(rows)
    history = model.fit(values, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=[steps]).history
    epochs = [{name: values[i] for name, values in history.items()} for i in range(2)]
    return [*steps.logs, *epochs, model.evaluate(values, batch_size=8, verbose=0, return_dict=True)]


def of_images():
    keras.utils.set_random_seed(0)
    model = ImageAutoencoder(get("vector_quantizer", num_codes=16, restart_threshold=0.0, seed=0), (8, 8, 1))
    model.compile(keras.optimizers.SGD(0.1))
    images = {"images": np.random.default_rng(1).integers(0, 256, (16, 8, 8, 1)).astype("uint8")}
    # Steps that begin with the codebook's initialisation differ: two replicas choose otherwise than one.
    model.bottleneck.codebook.set(np.random.default_rng(2).normal(size=(16, 8)))
    history = model.fit(images, batch_size=8, shuffle=False, verbose=0).history
    return [{name: values[0] for name, values in history.items()}, model.evaluate(images, verbose=0, return_dict=True)]


def of_predictor():
    keras.utils.set_random_seed(0)
    model = ImageTransformer((2, 2, 1), NUM_CODES, 1, 1, 8, 1, 8, dropout=0.0)
    model.compile(keras.optimizers.SGD(1.0))
    codes = np.random.default_rng(1).integers(0, 2, (16, 4, 1)).astype("int32")
    history = model.fit(codes, batch_size=8, shuffle=False, verbose=0, epochs=2).history
    return [{name: values[epoch] for name, values in history.items()} for epoch in range(2)]


def outside():
    """Half of the first batch each time."""
    model = Rounding()
    for values in np.split(latents(8), 2):
        logs = model.compute_metrics(None, None, model(values))
    return [{name: float(value) for name, value in logs.items()}]


def on_tensorflow():
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    cases = {
        "codes": lambda: of_codes(EVEN),
        "uneven": lambda: of_codes(UNEVEN),
        "images": of_images,
        "predictor": of_predictor,
    }
    for name, case in cases.items():
        yield f"{name}/one", case()
        with strategy.scope():
            yield f"{name}/two", case()
    with strategy.scope():
        yield "codes/outside", outside()


def on_jax():
    for name, case in {"codes": lambda: of_codes(EVEN), "images": of_images, "predictor": of_predictor}.items():
        yield f"{name}/one", case()
        keras.distribution.set_distribution(keras.distribution.DataParallel())
        yield f"{name}/two", case()
        keras.distribution.set_distribution(None)


if __name__ == "__main__":
    results = dict(on_tensorflow() if keras.backend.backend() == "tensorflow" else on_jax())
    with open(sys.argv[1], "w") as file:
        json.dump(results, file)
