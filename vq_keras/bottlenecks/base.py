"""What every bottleneck is, and what those with a codebook share."""

import math

import keras
from keras import ops

from vq_keras.bottlenecks.latent_layer import LatentLayer
from vq_keras.errors import InputError


class Bottleneck(LatentLayer):
    """A layer from continuous latents to discrete codes and back.

    `call(latents, mask=None, training=None)` gives a dict, always with these keys:

    - `"quantized"`: what the decoder gets, shaped and typed like the latents; gradients reach the latents as the
      subclass says, mostly straight through.
    - `"codes"`: the code of each latent, int32 (batch, *positions); -1 where masked.
    - `"samples"`: the m codes drawn for each latent, int32 (batch, *positions, m); m = 1 for hard assignments.

    With several codebooks the last of the positions counts the codebooks: latents (batch, *positions,
    num_codebooks, dim), codes (batch, *positions, num_codebooks).

    `decode(encode(latents))` equals what `call` gives in evaluation. Losses go to `add_loss`, in training and
    evaluation alike. Masked positions (False in `mask`, shaped (batch, *positions) without the codebooks' axis) count
    in no loss and no statistic. A latent with an element that is not finite gets the code -1 and moves no state; its
    output is not a number, so that the model's loss says so.

    A subclass gives three functions over flat latents, float32 (n, num_codebooks, dim):

    - `_assign(flat, training)`: samples (n, num_codebooks, m) and most likely codes (n, num_codebooks, 1);
    - `_lookup(samples)`: the mean of the vectors of m codes, none of them negative, float32 (n, num_codebooks, dim);
    - `_quantize(flat, weights, training, num_examples)`: quantized with its gradient, samples and codes; adds losses
      and moves state. `weights` (n,) is 1 for latents that count and 0 for masked ones; the rows are those of so many
      examples, as many of each, one example after another.

    Args:
        num_codes: codes in each codebook.
        num_codebooks: independent codebooks.
    """

    passes_straight_through = True
    outputs_of_call = ("quantized", "codes", "samples")

    def __init__(self, num_codes, num_codebooks=1, **kwargs):
        super().__init__(**kwargs)
        if num_codes < 2:
            raise InputError(f"num_codes is {num_codes}, but a codebook needs at least 2 codes.")
        if num_codebooks < 1:
            raise InputError(f"num_codebooks is {num_codebooks}; give 1 or more.")
        self.num_codes = num_codes
        self.num_codebooks = num_codebooks

    def build(self, input_shape):
        if self.num_codebooks > 1 and input_shape[-2] != self.num_codebooks:
            raise InputError(
                f"latents of shape {tuple(input_shape)} do not fit {self.num_codebooks} codebooks: "
                f"the axis before the last has to have the size {self.num_codebooks}."
            )
        self.dim = input_shape[-1]
        self.built = True

    def call(self, latents, mask=None, training=None):
        flat, weights, absent = self._present(latents, mask)
        present = weights[:, None, None] > 0
        quantized, samples, codes = self._quantize(flat, weights, training, ops.shape(latents)[0])
        quantized = ops.reshape(ops.where(present, quantized, absent[:, None, None]), ops.shape(latents))
        return {
            "quantized": ops.cast(quantized, self.compute_dtype),
            "codes": self._like_codes(ops.where(present, codes, -1), latents),
            "samples": self._like_samples(ops.where(present, samples, -1), latents),
        }

    def compute_output_spec(self, latents, mask=None, training=None):
        self._check(latents)
        # Said and not traced: Keras traces on JAX with symbolic sizes, which the chunks of rows cannot be cut by.
        # The number of samples is open, because training and evaluation may differ in it.
        codes = (latents.shape[0], *self.code_shape(latents.shape[1:-1]))
        return {
            "quantized": keras.KerasTensor(latents.shape, dtype=self.compute_dtype),
            "codes": keras.KerasTensor(codes, dtype="int32"),
            "samples": keras.KerasTensor((*codes, None), dtype="int32"),
        }

    def encode(self, latents):
        """The most likely code of each latent, int32 (batch, *positions)."""
        flat = self._flat(latents)
        codes = self._assign(flat, training=False)[1]
        return self._like_codes(ops.where(self._finite(flat)[:, None, None], codes, -1), latents)

    def sample(self, latents):
        """Codes drawn as in training, int32 (batch, *positions, m)."""
        flat = self._flat(latents)
        samples = self._assign(flat, training=True)[0]
        return self._like_samples(ops.where(self._finite(flat)[:, None, None], samples, -1), latents)

    def decode(self, codes):
        """The vectors of codes (batch, *positions), in the compute dtype; zero for -1; see `decode_samples`."""
        return self.decode_samples(ops.expand_dims(codes, -1))

    def decode_samples(self, samples):
        """The mean of the vectors of m codes, (batch, *positions, m) -> (batch, *positions, dim).

        Raises:
            InputError: for a code outside [-1, num_codes). A compiled function cannot look and does not raise: what a
                code that does not exist gives there is up to the backend.
        """
        samples = ops.cast(samples, "int32")
        self._check_codes(samples)
        flat = ops.reshape(samples, (-1, self.num_codebooks, samples.shape[-1]))
        vectors = ops.where(flat[..., :1] >= 0, self._lookup(ops.maximum(flat, 0)), 0.0)
        return ops.cast(ops.reshape(vectors, (*ops.shape(samples)[:-1], self.dim)), self.compute_dtype)

    def _check_codes(self, samples):
        try:
            ids = ops.convert_to_numpy(samples)
        except (NotImplementedError, TypeError):
            return  # A tensor of a graph that is being traced, on TensorFlow and on JAX.
        if ids.size and (ids.min() < -1 or ids.max() >= self.num_codes):
            wrong = ids.min() if ids.min() < -1 else ids.max()
            raise InputError(f"there is no code {wrong}: codes are 0 to {self.num_codes - 1}, or -1 where masked.")

    def _like_codes(self, codes, latents):
        return ops.reshape(codes, ops.shape(latents)[:-1])

    def _like_samples(self, samples, latents):
        return ops.reshape(samples, (*ops.shape(latents)[:-1], samples.shape[-1]))

    def get_config(self):
        return {**super().get_config(), "num_codes": self.num_codes, "num_codebooks": self.num_codebooks}


def straight_through(latents, quantized):
    """`quantized` forward, the identity on `latents` backward (oord2017 section 3.2).

    The forward value is `quantized` to the last bit, which latents + (quantized - latents) is not, and costs nothing.
    """
    return _pass_through(latents, ops.stop_gradient(quantized))


@ops.custom_gradient
def _pass_through(latents, quantized):
    def gradient(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        return upstream, ops.zeros_like(upstream)

    return quantized, gradient


def mean_over_elements(values, weights):
    """The mean over the elements of those rows of values (n, ...) that `weights` (n,) counts; 0 without any."""
    size = math.prod(values.shape[1:])
    weights_of_elements = ops.reshape(weights, (-1, *(1 for _ in values.shape[1:])))
    return ops.sum(values * weights_of_elements) / (ops.maximum(ops.sum(weights), 1.0) * size)
