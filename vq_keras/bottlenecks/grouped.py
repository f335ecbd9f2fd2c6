"""Groups of dimensions, each with a bottleneck of its own."""

import keras
from keras import ops

from vq_keras.bottlenecks import inner
from vq_keras.bottlenecks.base import Bottleneck
from vq_keras.errors import InputError


@keras.saving.register_keras_serializable(package="vq_keras")
class GroupedQuantizer(Bottleneck):
    """Cuts each latent into groups of dimensions and quantises each by its own bottleneck, with codes of its own.

    With `ResidualQuantizer`s for groups this is grouped residual quantisation (Yang et al. 2023, HiFi-Codec). Where one
    code for all groups is wanted, see `ProductQuantizer`.

    Args:
        groups: bottlenecks with as many codes each, in the order of the dimensions. With several stages or codebooks
            a group has several codes, all of which count as codebooks here.

    Shapes:
        latents (batch, *positions, dim), dim a multiple of the number of groups; codes (batch, *positions,
        num_codebooks), those of the first group first.

    Raises:
        InputError: where there is no group, their numbers of codes differ, or dim is no multiple of their number.

    Example:
        >>> groups = [ResidualQuantizer([VectorQuantizer(num_codes=64) for _ in range(3)]) for _ in range(2)]
        >>> GroupedQuantizer(groups)(keras.random.normal((2, 50, 16)), training=True)["codes"].shape
        (2, 50, 6)
    """

    def __init__(self, groups, **kwargs):
        if not groups:
            raise InputError("a grouped quantizer needs at least one group.")
        for group in groups:
            inner.check(group)
        if len({group.num_codes for group in groups}) > 1:
            raise InputError("the groups of a grouped quantizer need all as many codes.")
        if any(group.num_codebooks > 1 and not group.code_shape(()) for group in groups):
            raise InputError("a group gets no axis of codebooks; give a ProductQuantizer or ResidualQuantizer for it.")
        super().__init__(groups[0].num_codes, sum(group.num_codebooks for group in groups), **kwargs)
        self.groups = [inner.adopt(self, group) for group in groups]

    @property
    def passes_straight_through(self):
        return all(group.passes_straight_through for group in self.groups)

    def build(self, input_shape):
        self.dim = input_shape[-1]
        if self.dim % len(self.groups):
            raise InputError(f"latents of {self.dim} dimensions cannot be cut into {len(self.groups)} equal groups.")
        for group in self.groups:
            if not group.built:
                group.build((*input_shape[:-1], self.dim // len(self.groups)))
        self.built = True

    def code_shape(self, positions):
        return (*positions, self.num_codebooks)

    def call(self, latents, mask=None, training=None):
        self._check(latents)
        parts = ops.split(latents, len(self.groups), axis=-1)
        outputs = [group(part, mask=mask, training=training) for group, part in zip(self.groups, parts, strict=True)]
        return {
            "quantized": ops.cast(
                ops.concatenate([each["quantized"] for each in outputs], axis=-1), self.compute_dtype
            ),
            "codes": self._join([each["codes"][..., None] for each in outputs])[..., 0],
            "samples": self._join([each["samples"] for each in outputs]),
        }

    def encode(self, latents):
        return self._of_groups(latents, lambda group, part: group.encode(part)[..., None])[..., 0]

    def sample(self, latents):
        return self._of_groups(latents, lambda group, part: group.sample(part))

    def decode_samples(self, samples):
        vectors, start = [], 0
        for group in self.groups:
            own = samples[..., start : start + group.num_codebooks, :]
            start += group.num_codebooks
            vectors.append(group.decode_samples(own if group.code_shape(()) else own[..., 0, :]))
        return ops.cast(ops.concatenate(vectors, axis=-1), self.compute_dtype)

    def _of_groups(self, latents, choose):
        self._check(latents)
        parts = ops.split(latents, len(self.groups), axis=-1)
        return self._join([choose(group, part) for group, part in zip(self.groups, parts, strict=True)])

    def _join(self, samples):
        """Samples (batch, *positions[, codes of the group], m) of each group, side by side."""
        pairs = zip(self.groups, samples, strict=True)
        return ops.concatenate([each if group.code_shape(()) else each[..., None, :] for group, each in pairs], axis=-2)

    def get_config(self):
        config = super().get_config()
        del config["num_codes"], config["num_codebooks"]
        return {**config, "groups": [inner.serialize(group) for group in self.groups]}

    @classmethod
    def from_config(cls, config):
        return super().from_config({**config, "groups": [inner.deserialize(each) for each in config["groups"]]})
