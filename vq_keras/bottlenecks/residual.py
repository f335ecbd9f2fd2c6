"""Residual quantisation: each stage quantises what the stages before it left over."""

import keras
from keras import ops

from vq_keras.bottlenecks import inner
from vq_keras.bottlenecks.base import Bottleneck, straight_through
from vq_keras.bottlenecks.saved_seed import SavedSeed
from vq_keras.errors import InputError


@keras.saving.register_keras_serializable(package="vq_keras")
class ResidualQuantizer(SavedSeed, Bottleneck):
    """A sum of code vectors, one from each stage, coarse to fine (Zeghidour et al. 2021, SoundStream, algorithm 1).

        r_1 = z_e,    q_i = quantize_i(r_i),    r_{i+1} = r_i - sg(q_i),    z_q = sum_i q_i

    The gradient goes straight through once, however many stages there are, and the commitment loss of every stage
    reaches the encoder: it would not if the difference were taken from a quantised value that lets gradients through.

    Quantiser dropout makes one model serve many bit rates: in training an example uses, with probability `dropout`,
    only its first d stages, d uniform in 1 .. number of stages. The stages after see nothing of it, and give it the
    code -1, which decodes to zero. So does a code that was cut off: `decode(codes)` with -1 from a stage on is the
    reconstruction at the lower rate.

    Args:
        stages: bottlenecks of one number of codes each and one codebook, in order. Their output has to pass the
            gradient straight through; those whose output has weights of its own go around the whole (`Projected`).
        dropout: probability in [0, 1) that an example drops stages in training.
        seed: of the dropout.

    Shapes:
        latents (batch, *positions, dim); codes (batch, *positions, stages), samples (batch, *positions, stages, m).

    Raises:
        InputError: where there is no stage, or one that does not fit.

    Example:
        >>> quantizer = ResidualQuantizer([VectorQuantizer(num_codes=64) for _ in range(4)], dropout=0.5)
        >>> quantizer(keras.random.normal((2, 50, 16)), training=True)["codes"].shape
        (2, 50, 4)
    """

    def __init__(self, stages, dropout=0.0, seed=None, **kwargs):
        if not stages:
            raise InputError("a residual quantizer needs at least one stage.")
        for stage in stages:
            inner.check(stage)
            if stage.num_codes != stages[0].num_codes or stage.num_codebooks != 1:
                raise InputError("the stages of a residual quantizer need one codebook each, all with as many codes.")
            if not stage.passes_straight_through:
                raise InputError(
                    f"{type(stage).__name__} cannot be a stage: its gradient does not pass straight through. "
                    "Stages with weights around them are one Projected(ResidualQuantizer(...)) instead, and finite "
                    "scalar ones a ResidualFiniteScalarQuantizer."
                )
        if not 0 <= dropout < 1:
            raise InputError(f"dropout is {dropout}; give a probability in [0, 1).")
        super().__init__(stages[0].num_codes, len(stages), **kwargs)
        self.stages = [inner.adopt(self, stage) for stage in stages]
        self.dropout = dropout
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        for stage in self.stages:
            if not stage.built:
                stage.build(input_shape)
        self.dim = input_shape[-1]
        self.built = True

    def code_shape(self, positions):
        return (*positions, self.num_codebooks)

    def call(self, latents, mask=None, training=None):
        self._check(latents)
        latents = ops.cast(latents, "float32")
        if mask is not None:
            mask = ops.cast(mask, "bool")
            latents = ops.where(mask[..., None], latents, 0.0)
        latents = self._comparable(latents)
        masks = self._masks(latents, mask, training)
        total, codes, samples = ops.zeros_like(latents), [], []
        for stage, present in zip(self.stages, masks, strict=True):
            outputs = stage(latents - total, mask=present, training=training)
            total = total + ops.stop_gradient(outputs["quantized"])
            codes.append(outputs["codes"])
            samples.append(outputs["samples"])
        return {
            "quantized": ops.cast(straight_through(latents, total), self.compute_dtype),
            "codes": ops.stack(codes, axis=-1),
            "samples": ops.stack(samples, axis=-2),
        }

    def encode(self, latents):
        return self._in_stages(latents, lambda stage, rest: stage.encode(rest)[..., None])[..., 0]

    def sample(self, latents):
        return self._in_stages(latents, lambda stage, rest: stage.sample(rest))

    def decode_samples(self, samples):
        vectors = (stage.decode_samples(samples[..., i, :]) for i, stage in enumerate(self.stages))
        return ops.cast(sum(vectors), self.compute_dtype)

    def _in_stages(self, latents, choose):
        """The samples that `choose(stage, rest)` gives in each stage, (batch, *positions, stages, m)."""
        self._check(latents)
        rest, samples = self._comparable(ops.cast(latents, "float32")), []
        for stage in self.stages:
            samples.append(choose(stage, rest))
            rest = rest - stage.decode_samples(samples[-1])
        return ops.stack(samples, axis=-2)

    def _comparable(self, latents):
        """What the stages quantise, from float32 latents: themselves."""
        return latents

    def _masks(self, latents, mask, training):
        """The mask of each stage, or None where everything counts."""
        if not training or self.dropout == 0:
            return [mask] * len(self.stages)
        batch = ops.shape(latents)[:1]
        drops, depths = ops.unstack(keras.random.uniform((2, *batch), seed=self.seed_generator), 2)
        depths = ops.where(drops < self.dropout, ops.floor(depths * len(self.stages)) + 1, len(self.stages))
        depths = ops.reshape(depths, (-1, *(1 for _ in latents.shape[1:-1])))
        everywhere = ops.ones_like(latents[..., 0], "bool") if mask is None else mask
        return [ops.logical_and(everywhere, depths > i) for i in range(len(self.stages))]

    def get_config(self):
        config = super().get_config()
        del config["num_codes"], config["num_codebooks"]
        stages = [inner.serialize(stage) for stage in self.stages]
        return {**config, "stages": stages, "dropout": self.dropout, "seed": self.seed}

    @classmethod
    def from_config(cls, config):
        return super().from_config({**config, "stages": [inner.deserialize(each) for each in config["stages"]]})
