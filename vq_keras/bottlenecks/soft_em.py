"""Monte-Carlo soft EM."""

import keras

from vq_keras.bottlenecks import assignment
from vq_keras.bottlenecks.codebook_bottleneck import CodebookBottleneck
from vq_keras.bottlenecks.saved_seed import SavedSeed
from vq_keras.errors import InputError


@keras.saving.register_keras_serializable(package="vq_keras")
class SoftEM(SavedSeed, CodebookBottleneck):
    """Draws m codes for each latent and averages their vectors (roy2018 section 3.2, equation 11).

        E step: z^1 .. z^m ~ p(k) proportional to exp(-|z_e - e_k|^2 / temperature)
        M step: each sample counts 1/m in the moving averages of its code
        z_q = mean of e_{z^l} over the m samples,   loss = commitment_weight |z_e - sg(z_q)|^2

    The m samples are also the soft labels of the latent predictor. With codes far apart, or the temperature towards
    0, every sample is the nearest code and the layer is `VectorQuantizer(update="ema")`.

    Args:
        num_codes: codes in each codebook, at least 2.
        num_samples: m, at least 1; the paper uses 5 for images and 5 to 50 for translation.
        temperature: of the draw, above 0; 1 in the paper. Squared distances grow with `dim`, so the draw is sharp for
            long latents and nearly uniform for small ones: the temperature sets the scale.
        eval_mode: "argmin" (the default: one code, so that what is decoded is what is sent, and log p(x, z) is
            that of a code) or "sample" (as in training, what the released code does).
        num_codebooks, decay, epsilon, initializer, restart_threshold, commitment_weight: see `VectorQuantizer`.
        seed: of the draws, of initialisation and of restarts.

    Shapes:
        As for `VectorQuantizer`; `samples` is (batch, *positions, num_samples), in evaluation with "argmin"
        (batch, *positions, 1).

    Raises:
        InputError: for an argument outside its range, or latents and a mask that do not fit.

    Example:
        >>> bottleneck = SoftEM(num_codes=256, num_samples=10)
        >>> bottleneck(keras.random.normal((2, 8, 8, 64)), training=True)["samples"].shape
        (2, 8, 8, 10)
    """

    def __init__(self, num_codes, num_samples=10, temperature=1.0, eval_mode="argmin", seed=None, **kwargs):
        super().__init__(num_codes, seed=seed, **kwargs)
        if num_samples < 1:
            raise InputError(f"num_samples is {num_samples}; soft EM draws at least 1 code for each latent.")
        if not temperature > 0:
            raise InputError(f"temperature is {temperature}; give a number above 0.")
        if eval_mode not in ("argmin", "sample"):
            raise InputError(f'eval_mode is {eval_mode!r}; give "argmin" or "sample".')
        if self.codebook.update != "ema":
            raise InputError('soft EM moves its codebook in the M step; leave update at "ema".')
        self.num_samples = num_samples
        self.temperature = temperature
        self.eval_mode = eval_mode
        self.seed_generator = keras.random.SeedGenerator(seed)

    def _choose(self, flat, training):
        embeddings = self.codebook.embeddings
        if not training and self.eval_mode == "argmin":
            codes = assignment.nearest(flat, embeddings)
            return codes, codes
        shape = (*keras.ops.shape(flat)[:2], self.num_samples)
        uniforms = keras.random.uniform(shape, seed=self.seed_generator)
        return assignment.drawn(flat, embeddings, uniforms, self.temperature)

    def get_config(self):
        config = {name: getattr(self, name) for name in ("num_samples", "temperature", "eval_mode")}
        return {**super().get_config(), **config}
