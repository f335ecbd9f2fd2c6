"""Improved semantic hashing: codes that are bits, without a codebook."""

import keras
from keras import ops

from vq_keras.bottlenecks.base import Bottleneck, straight_through
from vq_keras.bottlenecks.saved_seed import SavedSeed
from vq_keras.errors import InputError


@keras.saving.register_keras_serializable(package="vq_keras")
class SemanticHashing(SavedSeed, Bottleneck):
    """Turns each latent into bits by a saturating sigmoid with noise (Kaiser and Bengio 2018 section 2.1).

        v = Dense(z_e) + noise,    y = clip(1.2 sigmoid(v) - 0.1, 0, 1),    d = [y > 1/2],    code = sum_i d_i 2^i
        c = d or y in training, by a coin for each example; d in evaluation; both with the gradient of y
        z_q = Dense(relu(Dense(relu(Dense_a(c) + Dense_b(1 - c)))))

    Bit i of a code is its i-th unit: the lowest bit is the first one. The sigmoid is exactly 0 or 1, without gradient,
    from |v| = ln 11 on. Noise makes values in between costly, so that units saturate. A whole example has bits alone,
    as in evaluation, or is relaxed, with a gradient without error. There is no loss, and no codebook.

    Args:
        num_codes: a power of two, 2 to the number of bits.
        noise: standard deviation of the normal noise of training, cut off at two of them. 0.5 as in the settings of the
            code released with roy2018 (Tensor2Tensor's `transformer_ae_small`); without settings it takes 1.
        discrete_mix: probability of d in training, in [0, 1], once the warm-up is over; 1/2 in the paper and in the
            released code, whose coin is one for each example, too.
        warmup_steps: training steps in which that probability rises exponentially from a hundredth of its last value;
            0 for none. The released code takes 20,000 steps, of far longer runs; a run that ends before leaves a
            decoder that has hardly seen bits alone.
        hidden_dim: units between bits and vectors; None is the dimension of the latents. The released code has more:
            4,096 for 384 or 512 dimensions in translation, twice the dimension for images.
        seed: of noise and coins.

    Shapes:
        latents (batch, *positions, dim); `samples` is (batch, *positions, 1) and equals `codes`.

    Raises:
        InputError: for an argument outside its range, or latents and a mask that do not fit.

    Example:
        >>> bottleneck = SemanticHashing(num_codes=256)
        >>> bottleneck(keras.random.normal((2, 8, 8, 64)), training=True)["codes"].shape
        (2, 8, 8)
    """

    passes_straight_through = False

    def __init__(self, num_codes, noise=0.5, discrete_mix=0.5, warmup_steps=1000, hidden_dim=None, seed=None, **kwargs):
        super().__init__(num_codes, 1, **kwargs)
        if num_codes & (num_codes - 1):
            raise InputError(f"num_codes is {num_codes}; codes made of bits need a power of two.")
        if not noise >= 0:
            raise InputError(f"noise is {noise}; give 0 or more.")
        if not 0 <= discrete_mix <= 1:
            raise InputError(f"discrete_mix is {discrete_mix}; give a probability.")
        if not warmup_steps >= 0:
            raise InputError(f"warmup_steps is {warmup_steps}; give 0 or more.")
        if hidden_dim is not None and hidden_dim < 1:
            raise InputError(f"hidden_dim is {hidden_dim}; give 1 or more.")
        self.num_bits = num_codes.bit_length() - 1
        self.noise = noise
        self.discrete_mix = discrete_mix
        self.warmup_steps = warmup_steps
        self.hidden_dim = hidden_dim
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        super().build(input_shape)

        def dense(inputs, units, name):
            layer = keras.layers.Dense(units, dtype="float32", name=name)
            layer.build((None, inputs))
            return layer

        hidden = self.hidden_dim or self.dim
        self.to_bits = dense(self.dim, self.num_bits, "to_bits")
        self.from_ones = dense(self.num_bits, hidden, "from_ones")
        self.from_zeros = dense(self.num_bits, hidden, "from_zeros")
        self.hidden = dense(hidden, hidden, "hidden")
        self.to_latents = dense(hidden, self.dim, "to_latents")
        self.steps = self.add_weight(dtype="int", trainable=False, aggregation="only_first_replica", name="steps")

    def _assign(self, flat, training):
        codes = _codes(self._relaxed(flat, training))
        return codes, codes

    def _quantize(self, flat, weights, training, num_examples):
        y = self._relaxed(flat, training)
        codes = _codes(y)
        if not training:
            return self._lookup(codes), codes, codes
        values = ops.where(self._coins(ops.shape(flat)[0], num_examples), _bits(codes, self.num_bits)[:, :, 0], y)
        if self.trainable:
            self.steps.assign(self.steps + 1)
        return self._vectors(straight_through(y, values)), codes, codes

    def _relaxed(self, flat, training):
        v = self.to_bits(flat)
        if training:
            shape = ops.shape(v)
            v = v + keras.random.truncated_normal(shape, stddev=self.noise, dtype="float32", seed=self.seed_generator)
        return saturating_sigmoid(v)

    def _coins(self, num_rows, num_examples):
        """Which rows pass on bits, bool (n, 1, 1): the same for all rows of an example."""
        share = self.discrete_mix
        if self.warmup_steps:
            progress = ops.minimum(ops.cast(self.steps, "float32") / self.warmup_steps, 1.0)
            share = share * ops.power(0.01, 1.0 - progress)
        uniforms = keras.random.uniform((num_examples,), dtype="float32", seed=self.seed_generator)
        rows_of_each = ops.maximum(num_rows // ops.maximum(num_examples, 1), 1)
        return ops.take(uniforms < share, ops.arange(num_rows, dtype="int32") // rows_of_each)[:, None, None]

    def _vectors(self, values):
        hidden = ops.relu(self.from_ones(values) + self.from_zeros(1.0 - values))
        return self.to_latents(ops.relu(self.hidden(hidden)))

    def _lookup(self, samples):
        return ops.mean(self._vectors(_bits(samples, self.num_bits)), axis=-2)

    def get_config(self):
        names = ("noise", "discrete_mix", "warmup_steps", "hidden_dim", "seed")
        config = {**super().get_config(), **{name: getattr(self, name) for name in names}}
        del config["num_codebooks"]  # Always 1: more codebooks would be more bits.
        return config


def saturating_sigmoid(v):
    """clip(1.2 sigmoid(v) - 0.1, 0, 1): exactly 0 below -ln 11 and 1 above ln 11."""
    return ops.clip(1.2 * ops.sigmoid(v) - 0.1, 0.0, 1.0)


def _codes(y):
    """Values (n, 1, bits) -> codes int32 (n, 1, 1), bit i from the i-th value."""
    return ops.sum(ops.cast(y > 0.5, "int32") * 2 ** ops.arange(y.shape[-1], dtype="int32"), axis=-1, keepdims=True)


def _bits(codes, num_bits):
    """Codes int32 (n, 1, m) -> 0.0 and 1.0, float32 (n, 1, m, num_bits)."""
    return ops.cast(codes[..., None] // 2 ** ops.arange(num_bits, dtype="int32") % 2, "float32")
