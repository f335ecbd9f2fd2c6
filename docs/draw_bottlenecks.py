"""Draws docs/bottlenecks.png and docs/trajectories.png: what bottlenecks make of latents in the plane.

python docs/draw_bottlenecks.py
"""

import pathlib

import keras
import matplotlib
import numpy as np

matplotlib.use("agg")
import matplotlib.pyplot as plt

from vq_keras import bottlenecks

HERE = pathlib.Path(__file__).parent
STEPS, BATCH, LIMIT = 200, 128, 3.2
# Few codes, so that their cells can be told apart.
CELLS = {
    "vector_quantizer": {"num_codes": 16},
    "soft_em": {"num_codes": 16, "num_samples": 10, "temperature": 0.1},
    "cosine": {"num_codes": 16},
    "sim_vq": {"num_codes": 16},
    "product": {"num_codes": 16},
    "residual": {"num_codes": 4},
    "finite_scalar": {"levels": (5, 4)},
    "lookup_free": {"num_codes": 4},
}
# The codes begin around the origin and the latents lie beside it, so that there is a way to see.
OFFSET = 3.0
START = {"num_codes": 16, "initializer": "normal", "restart_threshold": 0.0, "seed": 2}
WAYS = {
    "hard EM": ("vector_quantizer", {"decay": 0.95, **START}),
    "soft EM, 10 samples": ("soft_em", {"decay": 0.95, "num_samples": 10, "temperature": 2.0, **START}),
    "gradient": ("vector_quantizer", {"update": "gradient", **START}),
}


def latents(number, seed=0):
    """Points around six places of a ring, some of which have many more of them than others."""
    rng = np.random.default_rng(seed)
    shares = np.array([30, 20, 20, 15, 10, 5]) / 100
    place = rng.choice(6, number, p=shares)
    angles = place * np.pi / 3
    return (2 * np.stack([np.cos(angles), np.sin(angles)], -1) + 0.3 * rng.normal(size=(number, 2))).astype("float32")


class Recorder(keras.callbacks.Callback):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.states = []

    def on_train_batch_end(self, batch, logs=None):
        self.states.append(keras.ops.convert_to_numpy(self.layer.codebook.embeddings)[0])


def trained(layer, offset=0.0, record=False):
    """The states of the codebook after each step, of a bottleneck trained on latents that do not move."""
    inputs = keras.Input((2,))
    model = keras.Model(inputs, layer(inputs)["quantized"])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    recorder = Recorder(layer) if record else None
    data = latents(STEPS * BATCH) + np.float32(offset)
    model.fit(data, data, batch_size=BATCH, verbose=0, callbacks=[recorder] if record else [])
    return np.array(recorder.states) if record else None


def draw_cells():
    figure, axes = plt.subplots(2, 4, figsize=(14, 7.2))
    axis = np.linspace(-LIMIT, LIMIT, 300, dtype="float32")
    plane = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    data = latents(600, seed=1)
    for axes_of_one, (name, arguments) in zip(axes.flat, CELLS.items(), strict=True):
        keras.utils.set_random_seed(0)
        layer = bottlenecks.get(name, **arguments)
        trained(layer)
        codes = keras.ops.convert_to_numpy(layer.encode(plane)).reshape(len(plane), -1)
        ids = np.unique(codes, axis=0, return_inverse=True)[1].reshape(300, 300)
        # A colour for each cell, in an order without neighbours of like colour.
        colours = np.random.default_rng(3).permutation(ids.max() + 1)[ids]
        axes_of_one.imshow(colours, cmap="Pastel2", extent=(-LIMIT, LIMIT) * 2, origin="lower", interpolation="nearest")
        axes_of_one.plot(*data.T, ".", color="0.45", markersize=2)
        vectors = np.unique(keras.ops.convert_to_numpy(layer.decode(layer.encode(plane))).round(4), axis=0)
        axes_of_one.plot(*vectors.T, "k.", markersize=7)
        axes_of_one.set_title(f"{name}: {len(vectors)} codes")
    for each in axes.flat:
        each.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), xticks=[], yticks=[], aspect="equal")
    save(figure, "bottlenecks.png")


def draw_trajectories():
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.6))
    data = latents(600, seed=1) + np.float32(OFFSET)
    for axes_of_one, (title, (name, arguments)) in zip(axes, WAYS.items(), strict=True):
        layer = bottlenecks.get(name, **arguments)
        states = trained(layer, OFFSET, record=True)
        codes = keras.ops.convert_to_numpy(layer.encode(latents(2000, seed=2) + np.float32(OFFSET)))
        axes_of_one.plot(*data.T, ".", color="0.8", markersize=3)
        for code in range(states.shape[1]):
            axes_of_one.plot(*states[:, code].T, "-", linewidth=1)
            axes_of_one.plot(*states[-1, code], "k.", markersize=6)
        axes_of_one.set_title(f"{title}: {len(np.unique(codes))} of {states.shape[1]} codes in use")
        axes_of_one.set(xlim=(-2.5, 6), ylim=(-2.5, 6), xticks=[], yticks=[], aspect="equal")
    save(figure, "trajectories.png")


def save(figure, name):
    figure.tight_layout()
    figure.savefig(HERE / name, dpi=80)
    plt.close(figure)


if __name__ == "__main__":
    draw_cells()
    draw_trajectories()
