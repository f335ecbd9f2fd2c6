"""What the tests of the PixelCNN share: one in a known state, codes, classes and contexts for it."""

import numpy as np
from keras import ops

from tests.compiled import compiled, numpy
from vq_keras.priors import PixelCNN

NUM_CODES = 7


def make(code_shape=(4, 5), num_codes=NUM_CODES, **kwargs):
    """With weights that do not depend on the backend, biases among them."""
    predictor = PixelCNN(
        code_shape, num_codes, **{"num_layers": 2, "hidden_dim": 12, "kernel_size": 3, "dropout": 0.0, **kwargs}
    )
    rng = np.random.default_rng(0)
    for weight in predictor.weights:
        if len(weight.shape) == 1:
            scale = 0.3
        elif weight.path.endswith("table/codes"):
            scale = predictor.hidden_dim**-0.5
        else:
            scale = 1.5 * np.prod(weight.shape[:-1]) ** -0.5
        weight.assign(scale * rng.normal(size=weight.shape))
    return predictor


def random_samples(batch, code_shape, m=1):
    shape = (batch, int(np.prod(code_shape)), m)
    return np.random.default_rng(1).integers(0, NUM_CODES, shape).astype("int32")


def inputs(predictor, samples):
    """With another class and another context for each sample, where there are some."""
    conditions = conditions_of(predictor, len(samples))
    return {"samples": samples, **conditions} if conditions else samples


def conditions_of(predictor, batch):
    conditions = {}
    if predictor.num_classes is not None:
        conditions["classes"] = ops.arange(batch, dtype="int32") % predictor.num_classes
    if predictor.context_shape is not None:
        shape = (batch, *predictor.context_shape)
        conditions["context"] = ops.convert_to_tensor(np.random.default_rng(2).normal(size=shape), "float32")
    return conditions


def logits_of(predictor, samples):
    return numpy(compiled(predictor)(inputs(predictor, samples)))
