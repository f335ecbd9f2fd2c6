"""An autoregressive model of pixels: a latent predictor whose codes are the levels of sub-pixels themselves."""

import math

import keras
import numpy as np
from rich.console import Console

from vq_keras import evaluation, plots
from vq_keras.data import images
from vq_keras.data.batches import test_batches, training_batches
from vq_keras.training import prior, runs
from vq_keras.training.fit import make_deterministic

LEVELS = 256
NUM_SAMPLES = 16


def run(config):
    """Trains, evaluates and samples the model of a `PriorConfig`; returns the figures.

    Ids have no order, so that the model has to learn that levels 100 and 101 are alike.
    """
    keras.config.set_dtype_policy(config.precision)
    make_deterministic(config.seed)
    data = images.load(config.dataset, config.data_dir, config.image_size)
    prior.check_classes(data, config.class_conditional)
    num_classes = data.num_classes if config.class_conditional else None
    # An Image Transformer has a table of embeddings for each colour, as PixelCNNs have.
    model = prior.make(config.prior, data.image_shape, LEVELS, data.image_shape[-1], config.sizes(), num_classes)
    runs.claim(config.run_dir, config.decisive())

    def batches(start_step):
        classes = data.train_classes if config.class_conditional else None
        return as_samples(
            training_batches(data.train, config.batch_size, config.seed, start_step, config.flip, classes)
        )

    prior.train(model, batches, config, config.run_dir, config.run_dir.name)
    runs.save_model(model, config.run_dir)

    classes = data.test_classes if config.class_conditional else None
    tests = prior.inputs_of(model, as_samples(test_batches(data.test, config.batch_size, classes)))
    steps = -(-len(data.test) // config.batch_size)
    nats = model.evaluate(tests, steps=steps, return_dict=True, verbose=0)["nll_z"]
    metrics = {"exact_bits_per_dim": nats / math.log(2), "num_images": len(data.test)}
    evaluation.write_json(metrics, config.run_dir / runs.METRICS)

    uniforms = np.random.default_rng(config.seed).random((NUM_SAMPLES, math.prod(data.image_shape)), dtype="float32")
    context = {"classes": np.arange(NUM_SAMPLES, dtype="int32") % num_classes} if num_classes else {}
    pictures = keras.ops.convert_to_numpy(model.generate(uniforms, **context)).astype("uint8")
    plots.save_grid(config.run_dir / "samples.png", pictures, columns=8)
    Console().print(evaluation.table(metrics))
    return metrics


def as_samples(batches):
    """Each dict with images (batch, height, width, channels) as one with samples (batch, n, 1) int32."""
    for batch in batches:
        levels = keras.ops.convert_to_numpy(batch["images"]).astype("int32")
        yield {**batch, "samples": levels.reshape(len(levels), -1, 1)}
