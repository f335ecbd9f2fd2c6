"""What every layer over latents makes of shapes, masks and latents that are no numbers."""

import keras
from keras import ops

from vq_keras.errors import InputError


class LatentLayer(keras.layers.Layer):
    """A layer over latents (batch, *positions, dim), whose outputs are a dict; it knows `dim` once it is built.

    With several codebooks the last of the positions counts the codebooks, and masks do not have it. Masked positions
    (False in `mask`) count in no loss and no statistic, and what comes of them is 0 or, for ids, -1. A latent with an
    element that is not finite counts nowhere either, but what comes of it is not a number, so that the loss says so.

    Attributes:
        outputs_of_call: the keys of what `call` gives.
        has_codes: whether the codes and samples of `Bottleneck` are among them.
        gives_bound: whether they tell a distribution q(z | x), of which a model makes a lower bound on log p(x):
            "vectors", drawn from q in training and evaluation alike, (batch, *positions, m, dim), and either "kl" or
            "log_probs" and "log_priors". The model's loss is that bound; the layer adds none.
        passes_straight_through: whether the gradient of `quantized` reaches the latents unchanged, and nothing else.
    """

    has_codes = True
    gives_bound = False
    passes_straight_through = False
    num_codebooks = 1

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def compute_mask(self, latents, previous_mask):
        return dict.fromkeys(self.outputs_of_call, previous_mask)

    def code_shape(self, positions):
        """The shape of the codes of latents (batch, *positions, dim), without the batch."""
        return tuple(positions)

    def _present(self, latents, mask):
        """The latents that count; the one place where others are lost, and their gradients.

        Returns:
            The latents, float32 (n, num_codebooks, dim), 0 where they do not count; `weights` (n,), 1 for those that
            count and 0 for others; and what comes of these, (n,): 0, or not a number where not masked.
        """
        flat, weights = self._flat(latents), self._weights(latents, mask)
        finite = self._finite(flat)
        absent = ops.where(ops.logical_or(finite, weights == 0), 0.0, float("nan"))
        weights = ops.where(finite, weights, 0.0)
        return ops.where(weights[:, None, None] > 0, flat, 0.0), weights, absent

    def _placed(self, values, weights, absent, latents):
        """What comes of the latents, (n, num_codebooks, ...), as `_present` gave them -> (batch, *positions, ...)."""
        weights, absent = (ops.reshape(each, (-1, *(1 for _ in values.shape[1:]))) for each in (weights, absent))
        values = ops.where(weights > 0, values, absent)
        return ops.reshape(values, (*ops.shape(latents)[:-1], *values.shape[2:]))

    def _check(self, latents):
        if latents.shape[-1] != self.dim:
            raise InputError(f"latents have {latents.shape[-1]} dimensions, but this bottleneck has {self.dim}.")

    def _flat(self, latents):
        self._check(latents)
        return ops.reshape(ops.cast(latents, "float32"), (-1, self.num_codebooks, self.dim))

    def _finite(self, flat):
        # A sum is not finite where any of its terms is not, and costs one pass.
        return ops.isfinite(ops.sum(flat, axis=(1, 2)))

    def _weights(self, latents, mask):
        """1 for each latent that counts and 0 for each that is masked, float32 (n,)."""
        wanted = latents.shape[: -1 if self.num_codebooks == 1 else -2]
        if mask is None:
            return ops.reshape(ops.ones(ops.shape(latents)[: len(wanted)]), (-1,))
        given = mask.shape
        known = [pair for pair in zip(wanted, given, strict=False) if None not in pair]
        if len(wanted) != len(given) or any(want != have for want, have in known):
            raise InputError(f"the mask has the shape {tuple(given)}, but these latents need {tuple(wanted)}.")
        return ops.reshape(ops.cast(ops.cast(mask, "bool"), "float32"), (-1,))
