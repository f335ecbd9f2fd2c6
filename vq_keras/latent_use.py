"""Whether a decoder that needs no latents uses them: the likelihood with an image's own and with another's."""

import math

import keras
import numpy as np
from rich.table import Table

from vq_keras import evaluation
from vq_keras.errors import InputError

LABELS = {
    "bits_per_image": ("bits an image", "{:.2f}"),
    "bits_per_image_codes": ("    codes", "{:.2f}"),
    "bits_per_image_latents": ("    latents", "{:.2f}"),
    "bits_per_code": ("bits a code, given the latents", "{:.4f}"),
    "shuffled_bits_per_image_codes": ("bits of an image's codes with the latents of another", "{:.2f}"),
    "drop_bits_per_image": ("drop in log-likelihood with those, bits an image", "{:.2f}"),
    "drop_standard_error": ("    standard error", "{:.2f}"),
    "drop_in_standard_errors": ("    drop in standard errors", "{:.1f}"),
    "drawn_drop_bits_per_image": ("drop with draws of the latents, bits an image", "{:.2f}"),
    "drawn_drop_standard_error": ("    standard error", "{:.2f}"),
    "drawn_drop_in_standard_errors": ("    drop in standard errors", "{:.1f}"),
}
LABELS_OF_LATENTS = {
    "perplexity": ("perplexity of latent {}", "{:.1f}"),
    "codes_in_use": ("codes in use of latent {}", "{:d}"),
}


def evaluate(model, codes: np.ndarray, batch_size: int = 32, seed: int = 0) -> dict[str, float]:
    """Scores a code autoencoder on a test set: bits, what the latents add to the likelihood, use of the codebooks.

    What the latents are worth is seen when each image gets those of another one, always the same one for a seed (see
    `other_images`). Where the decoder ignores them (posterior collapse) nothing changes; where it listens, it is
    misled, and its log-likelihood falls. The drop is the mean over images of the difference between both, and its
    standard error is that of these paired differences. It takes the images as independent: of neighbouring frames of a
    video the mean is less certain than that. No bits are added for the latents in it.

    Two kinds of latents are scored where there are no codes:

    - the means, which `encode` gives, in "drop_..." and "shuffled_...", as the codes are of a model that has them;
    - one draw from each image's distribution, in all others of the figures. With those the bits of an image are the
      evidence bound, and "drawn_drop_..." is the drop where both images' latents are drawn.

    With codes the bits of an image are -log2 p(codes, z) for its argmin latents z, of which each costs log2 K. Either
    is an upper bound on -log2 p(codes).

    Args:
        model: a `CodeAutoencoder`.
        codes: int32 (images, *model.code_shape), at least two images.
        batch_size: images scored at a time.
        seed: decides which image gets whose latents.

    Returns:
        `bits_per_image` and its terms `bits_per_image_codes` and `bits_per_image_latents`; `bits_per_code`, the first
        of them for a single code; `shuffled_bits_per_image_codes` with another image's latents; of the drop, in bits of
        an image, `drop_bits_per_image`, `drop_standard_error` and `drop_in_standard_errors`, one by the other; without
        codes likewise `drawn_drop_...`; for each latent code, from 1, `perplexity_1` and `codes_in_use_1`;
        `num_images`.

    Raises:
        InputError: there are fewer than two images, or their codes do not have the shape that the model needs.

    Example:
        >>> from vq_keras.bottlenecks import VectorQuantizer
        >>> from vq_keras.models.code_autoencoder import CodeAutoencoder
        >>> model = CodeAutoencoder(VectorQuantizer(8, num_codebooks=3), code_shape=(4, 4), num_codes=16)
        >>> evaluate(model, np.random.default_rng(0).integers(0, 16, (10, 4, 4)))["bits_per_image_latents"]
        9.0
    """
    if codes.shape[1:] != model.code_shape:
        raise InputError(f"codes have the shape {codes.shape[1:]}, but the model needs {model.code_shape}.")
    others = other_images(len(codes), seed)
    encoded = _predict(Encode(model), {"codes": codes}, batch_size)
    score = Score(model)

    def bits(latents):
        return _predict(score, {"codes": codes, "latents": latents}, batch_size).astype("float64") / math.log(2)

    own, shuffled = bits(encoded["latents"]), bits(encoded["latents"][others])
    drops = _drop("drop", own, shuffled)
    if model.bottleneck.has_codes:
        bits_of_latents = math.prod(model.latent_shape) * math.log2(model.bottleneck.num_codes)
        usage = _usage(encoded["latents"].reshape(len(codes), -1), model.bottleneck.num_codes)
    else:
        bits_of_latents, usage = encoded["kl"].sum(axis=1, dtype="float64").mean() / math.log(2), {}
        own = bits(encoded["draws"])
        drops |= _drop("drawn_drop", own, bits(encoded["draws"][others]))
    return {
        "bits_per_image": float(own.mean() + bits_of_latents),
        "bits_per_image_codes": float(own.mean()),
        "bits_per_image_latents": float(bits_of_latents),
        "bits_per_code": float(own.mean() / math.prod(model.code_shape)),
        "shuffled_bits_per_image_codes": float(shuffled.mean()),
        **drops,
        **usage,
        "num_images": len(codes),
    }


def other_images(num_images: int, seed: int) -> np.ndarray:
    """For each image another one, each of them once: all images in one random circle, and of each the one before.

    Returns:
        int64 (num_images,).

    Raises:
        InputError: there are fewer than two images.

    Example:
        >>> int(other_images(2, seed=0)[0])
        1
    """
    if num_images < 2:
        raise InputError(f"there are {num_images} images; latents can be exchanged from two on.")
    circle = np.random.default_rng(seed).permutation(num_images)
    others = np.empty_like(circle)
    others[circle] = np.roll(circle, 1)
    return others


def table(figures: dict[str, float]) -> Table:
    """What `evaluate` gave as a table for the terminal.

    Example:
        >>> rows = table({"bits_per_image": 1234.5, "perplexity_1": 120.3})  # Print it with `rich.print(rows)`.
    """
    labels = dict(LABELS)
    for name in figures:
        kind, _, place = name.rpartition("_")
        if kind in LABELS_OF_LATENTS:
            label, form = LABELS_OF_LATENTS[kind]
            labels[name] = (label.format(place), form)
    return evaluation.table(figures, {**labels, "num_images": evaluation.LABELS["num_images"]})


class Encode(keras.Model):
    """{codes} -> their latents as `encode` gives them; without codes also a draw of each and the divergence."""

    def __init__(self, model):
        super().__init__(dtype="float32")
        self.autoencoder = model

    def call(self, inputs):
        model = self.autoencoder
        outputs = {"latents": model.encode(inputs["codes"])}
        if not model.bottleneck.has_codes:
            drawn = model.bottleneck(model.encoder(inputs["codes"], training=False), training=False)
            outputs |= {"draws": drawn["vectors"][..., 0, :], "kl": drawn["kl"]}
        return outputs


class Score(keras.Model):
    """{codes, latents} -> -log p(codes | latents) in nats of each image, (batch,)."""

    def __init__(self, model):
        super().__init__(dtype="float32")
        self.autoencoder = model

    def call(self, inputs):
        return self.autoencoder.nats(inputs["codes"], inputs["latents"])


def _predict(model, arrays, batch_size):
    """`model.predict` in batches of one size, which are compiled once: the last is filled up with the first images."""
    number = len(arrays["codes"])
    rows = np.arange(-(-number // batch_size) * batch_size) % number
    outputs = model.predict({name: array[rows] for name, array in arrays.items()}, batch_size=batch_size, verbose=0)
    return keras.tree.map_structure(lambda output: output[:number], outputs)


def _drop(name, own, shuffled):
    """Mean of the paired differences, its standard error, and the one by the other."""
    drops = shuffled - own
    error = drops.std(ddof=1) / math.sqrt(len(drops))
    return {
        f"{name}_bits_per_image": float(drops.mean()),
        f"{name}_standard_error": float(error),
        # Latents that are the same for all images change nothing, and this by an error of zero.
        f"{name}_in_standard_errors": float(drops.mean() / error) if error > 0 else 0.0,
    }


def _usage(codes, num_codes):
    """Of each latent code (images, latents): exp of the entropy of its counts, and how many codes there are."""
    usage = {}
    for place, column in enumerate(codes.T, start=1):
        counts = np.bincount(column, minlength=num_codes)
        shares = counts[counts > 0] / counts.sum()
        usage[f"perplexity_{place}"] = float(np.exp(-(shares * np.log(shares)).sum()))
        usage[f"codes_in_use_{place}"] = len(shares)
    return usage
