"""What all latent predictors share: the loss, the metric and the draws."""

import math

import keras
from keras import ops

from vq_keras import generation
from vq_keras.bottlenecks import replicas
from vq_keras.errors import InputError
from vq_keras.priors import soft_labels


class LatentPredictor(keras.Model):
    """Autoregressive model of a field of codes, p(z) = prod_t p(z_t | z_0 ... z_{t-1}), in raster order.

    It can be trained jointly with an autoencoder, as a part of another functional model, or alone on codes:
    `compile(optimizer)` and `fit(samples)`, whose loss is the mean cross entropy of a code in nats, reported as
    `nll_z`.

    A subclass builds a functional model of samples (batch, n, m) int32, alone or as "samples" of a dict, with m ids for
    each latent (1 for hard assignments) and negative ids at masked positions, to logits (batch, n, num_codes) float32
    of the code at each position given those before it. For generation it has

    - `init_cache(batch_size)`: the empty cache for `batch_size` sequences (an int or a scalar tensor); arguments that
      follow say what the codes are conditioned on.
    - `step(codes, position, cache) -> logits (batch, num_codes), cache`: the output of the model at `position`, an int
      or an int32 scalar tensor that goes through 0, 1, 2, ... in order, from the codes (batch,) int32 at the position
      before, which are not read at position 0, and from what `init_cache`, or the step before, returned.

    Args:
        inputs, outputs: of the functional model.
        code_shape: axes of the field of codes; its product is n.
        num_codes: size of a codebook.
    """

    num_classes = None

    def __init__(self, inputs, outputs, code_shape: tuple, num_codes: int, **kwargs):
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        self.code_shape = code_shape
        self.num_codes = num_codes
        self.nll_z = keras.metrics.Mean(name="nll_z")

    def cross_entropy(self, samples, logits):
        """-log p of each field of codes in nats, the mean over the samples of each latent (roy2018, section 3.2).

        With m = 1 this is the exact negative log-likelihood. With more it is the cross entropy with the average of
        the m one-hot labels, at least the entropy of that average. Masked positions (negative ids) count nothing.

        Args:
            samples: (batch, n, m) int32.
            logits: (batch, n, num_codes), what the model gives for these samples.

        Returns:
            (batch,) float32, the sum over positions.
        """
        return ops.sum(soft_labels.cross_entropy(samples, logits), axis=-1)

    def nats(self, samples, classes=None, context=None, training=False):
        """-log p of each field of codes: `cross_entropy` of what the model gives.

        Args:
            samples: (batch, n, m) int32.
            classes: (batch,) int32, where the model is conditioned on a class.
            context: where it is conditioned on one.

        Returns:
            (batch,) float32, the sum over positions.
        """
        conditions = {"classes": classes, "context": context}
        given = {name: condition for name, condition in conditions.items() if condition is not None}
        inputs = {"samples": samples, **given} if given else samples
        return self.cross_entropy(samples, self(inputs, training=training))

    def generate(self, uniforms, temperature=1.0, top_k: int | None = None, **context):
        """Draws fields of codes.

        Args:
            uniforms: (batch, n), independent and uniform in [0, 1).
            temperature, top_k: as for `vq_keras.generation.sample`.
            **context: what else `init_cache` takes.

        Returns:
            codes (batch, *code_shape) int32.
        """
        cache = self.init_cache(ops.shape(uniforms)[0], **context)
        codes, _ = generation.sample(self.step, cache, math.prod(self.code_shape), uniforms, temperature, top_k)
        return ops.reshape(codes, (-1, *self.code_shape))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The mean cross entropy of a code in nats; `x` is the input, `y` and `sample_weight` are not used."""
        nats, count = self._totals(x, y_pred)
        return replicas.share_of_loss(nats / count)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Tracks `nll_z`, the mean over all codes that are not masked, whatever batch they came in."""
        nats, count = self._totals(x, y_pred)
        self.nll_z.update_state(nats / count, sample_weight=count)
        return self.get_metrics_result()

    def _totals(self, x, logits):
        """The nats of a batch, and the number of its codes."""
        samples = x["samples"] if isinstance(x, dict) else x
        count = ops.sum(ops.mean(ops.cast(samples >= 0, "float32"), axis=-1))
        return ops.sum(self.cross_entropy(samples, logits)), ops.maximum(count, 1.0)

    def get_config(self):
        return {"name": self.name, "code_shape": self.code_shape, "num_codes": self.num_codes}


def check_field(code_shape: tuple, num_codes: int):
    """Raises an `InputError` where there is no such field of codes."""
    if not code_shape or min(code_shape) < 1:
        raise InputError(f"code_shape is {code_shape}; give one positive size for each axis.")
    if num_codes < 2:
        raise InputError(f"num_codes is {num_codes}; give at least 2.")
