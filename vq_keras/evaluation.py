"""Evaluation of an image autoencoder over a whole data set: bits/dim, reconstructions, use of the codebook."""

import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from keras import ops
from rich.table import Table

from vq_keras.errors import InputError
from vq_keras.metrics import CodebookDistance, CodesInUse, LargestShare, Perplexity, bits_per_dim
from vq_keras.scoring import Bound, Score, encoded, filled_up
from vq_keras.training.files import replace_file

LABELS = {
    "exact_bits_per_dim": ("bits/dim, exact", "{:.4f}"),
    "strict_bits_per_dim": ("bits/dim, strict (argmin codes, hard labels)", "{:.4f}"),
    "strict_bits_per_dim_reconstruction": ("    reconstruction", "{:.4f}"),
    "strict_bits_per_dim_codes": ("    codes", "{:.4f}"),
    "unigram_bits_per_dim": ("bits/dim, unigram prior (argmin codes)", "{:.4f}"),
    "unigram_bits_per_dim_codes": ("    codes", "{:.4f}"),
    "paper_bits_per_dim": ("bits/dim, paper (sampled codes, soft labels)", "{:.4f}"),
    "paper_bits_per_dim_reconstruction": ("    reconstruction", "{:.4f}"),
    "paper_bits_per_dim_codes": ("    codes", "{:.4f}"),
    "bound_bits_per_dim": ("bits/dim, bound (drawn latents)", "{:.4f}"),
    "bound_bits_per_dim_reconstruction": ("    reconstruction", "{:.4f}"),
    "bound_bits_per_dim_latents": ("    latents", "{:.4f}"),
    "psnr": ("PSNR of reconstructions, dB", "{:.2f}"),
    "perplexity": ("perplexity of the codes", "{:.1f}"),
    "codes_in_use": ("codes in use", "{:d}"),
    "usage": ("share of the codes in use", "{:.1%}"),
    "largest_share": ("share of the most used code", "{:.1%}"),
    "codebook_distance": ("squared distance of latents from their vectors", "{:.4f}"),
    "compression": ("bits of an image over those of its codes, all equally likely", "{:.1f}"),
    "num_images": ("images", "{:d}"),
}


def evaluate(model, batches: Iterable[dict], unigram: np.ndarray | None = None) -> dict[str, float]:
    """Scores a model on a data set in one pass.

    bits/dim (`metrics.bits_per_dim`) comes in two modes, each with its two terms apart:

    - *strict*: the decoder gets the vectors of the argmin codes z, and the prior codes those. This is
      -log2 p(x, z), an upper bound on -log2 p(x): a lossless coder would pay it. Compare models by this one.
    - *paper*: as roy2018 trains and, by its released code, evaluates. The bottleneck draws m codes for each latent,
      the decoder gets the mean of their vectors, the prior is scored by soft labels. For m > 1 it bounds nothing: no
      code stands for that mean. For hard assignments the two are the same.

    Bottlenecks that give a bound on log p(x), `LatentLayer.gives_bound`, have another mode in place of *paper*:

    - *bound*: what the model trains on, the ELBO of one draw or the bound of m draws, here of new draws; an upper
      bound on -log2 p(x), too, in expectation, with the prior that the bottleneck has. "All reported likelihoods are
      lower bounds" (oord2017 section 4.1). A continuous latent has no code, so that *bound* is all there is for it.

    Without a latent predictor the prior of either is uniform, ln K nats for each code. `unigram` adds the figures of
    oord2017, as roy2018 reports them: strict, but with one distribution for each latent position in place of the
    latent predictor.

    Args:
        model: an `ImageAutoencoder`.
        batches: dicts with `"images"`, uint8 (batch, *model.image_shape), and, for a latent predictor of classes,
            `"classes"`; batches may differ in size, and each image counts the same.
        unigram: what `fit_unigram` gave for the training set, or None.

    Returns:
        `{mode}_bits_per_dim`, `{mode}_bits_per_dim_reconstruction` and `{mode}_bits_per_dim_codes` for the modes
        strict and paper, `bound_bits_per_dim`, `bound_bits_per_dim_reconstruction` and `bound_bits_per_dim_latents`
        for bound; with a unigram prior `unigram_bits_per_dim` and `unigram_bits_per_dim_codes`; `psnr` in dB of the
        likelihood's mode, strict or, without codes, for the means of the latents; of the argmin codes `perplexity`,
        `codes_in_use` (summed over codebooks), `usage` (their share of all codes), `largest_share` and, where the
        bottleneck passes gradients straight through, `codebook_distance` (`metrics.CodebookDistance`); `compression`,
        the bits of an image, 8 for each dimension, over log2 K for each of its codes (oord2017 section 4.2: 42.6 for
        128x128 images as 32x32 codes of 512); `num_images`.

    Raises:
        InputError: if there are no images, or if they or `unigram` do not have the shape that the model needs; for a
            unigram prior where there are no codes.

    Example:
        >>> from vq_keras import bottlenecks
        >>> from vq_keras.models.image import ImageAutoencoder
        >>> model = ImageAutoencoder(bottlenecks.VectorQuantizer(num_codes=256), image_shape=(8, 8, 3))
        >>> batches = [{"images": np.zeros((4, 8, 8, 3), "uint8")}]
        >>> round(evaluate(model, batches, fit_unigram(model, batches))["strict_bits_per_dim_codes"], 4)  # 40 x 8 / 192
        1.6667
    """
    if not model.bottleneck.has_codes:
        return _evaluate_bound(model, batches, unigram)
    num_codes = math.prod(model.code_shape)
    num_ids, num_codebooks = model.bottleneck.num_codes, model.bottleneck.num_codebooks
    if unigram is not None and np.shape(unigram) != (num_codes, num_ids):
        raise InputError(
            f"the unigram prior has the shape {np.shape(unigram)}, but the model needs {(num_codes, num_ids)}; "
            "fit it to the codes of this model."
        )
    # One function for each mode: the number of samples is a part of its shape.
    score_strict = Score(model)
    mode_of_draws, score_draws = ("bound", Bound(model)) if model.bottleneck.gives_bound else ("paper", Score(model))
    usage = [metric(num_ids, num_codebooks) for metric in (Perplexity, CodesInUse, LargestShare)]
    distance = CodebookDistance()
    num_images = 0
    sums = dict.fromkeys(("strict_x", "strict_z", "draws_x", "draws_z", "psnr", "unigram_z"), 0.0)

    for size, inputs, codes, samples, distances in encoded(model, batches):
        hard = codes[..., None]
        strict = score_strict.predict_on_batch({**inputs, "samples": hard})
        same = np.array_equal(samples, hard)
        draws = strict if same else score_draws.predict_on_batch({**inputs, "samples": samples})
        num_images += size
        for mode, terms in (("strict", strict), ("draws", draws)):
            for term in ("x", "z"):
                sums[f"{mode}_{term}"] += terms[f"nll_{term}"][:size].sum(dtype="float64")
        sums["psnr"] += strict["psnr"][:size].sum(dtype="float64")
        for metric in usage:
            metric.update_state(ops.convert_to_tensor(codes[:size]))
        distance.update_state(ops.convert_to_tensor(distances[:size]), ops.convert_to_tensor(codes[:size]))
        if unigram is not None:
            sums["unigram_z"] -= unigram[np.arange(num_codes), codes[:size].reshape(size, num_codes)].sum()

    if num_images == 0:
        raise InputError("there are no images to evaluate; give at least one.")
    means = {name: float(total) / num_images for name, total in sums.items()}

    result = {
        **_bits(model, "strict", means["strict_x"], means["strict_z"]),
        **_bits(model, mode_of_draws, means["draws_x"], means["draws_z"]),
    }
    if unigram is not None:
        figures = _bits(model, "unigram", means["strict_x"], means["unigram_z"])
        result |= {name: figures[name] for name in ("unigram_bits_per_dim", "unigram_bits_per_dim_codes")}
    if model.bottleneck.passes_straight_through:
        result["codebook_distance"] = float(distance.result())
    perplexity, in_use, largest = (float(metric.result()) for metric in usage)
    return {
        **result,
        "psnr": means["psnr"],
        "perplexity": perplexity,
        "codes_in_use": int(in_use),
        "usage": in_use / (num_ids * num_codebooks),
        "largest_share": largest,
        "compression": 8 * math.prod(model.image_shape) / (num_codes * math.log2(num_ids)),
        "num_images": num_images,
    }


def _evaluate_bound(model, batches, unigram):
    """`evaluate` of a model without codes."""
    if unigram is not None:
        raise InputError("a unigram prior is one of codes, of which this model has none; leave it out.")
    score, sums, num_images = Bound(model), dict.fromkeys(("nll_x", "nll_z", "psnr"), 0.0), 0
    for size, inputs in filled_up(model, batches):
        terms = score.predict_on_batch(inputs)
        num_images += size
        for name in sums:
            sums[name] += terms[name][:size].sum(dtype="float64")
    if num_images == 0:
        raise InputError("there are no images to evaluate; give at least one.")
    means = {name: float(total) / num_images for name, total in sums.items()}
    return {**_bits(model, "bound", means["nll_x"], means["nll_z"]), "psnr": means["psnr"], "num_images": num_images}


def _bits(model, mode, nats_x, nats_z):
    """bits/dim of a mode and its two terms, by name, for the nats of an image and of its codes or latents."""
    num_dims, num_codes = math.prod(model.image_shape), math.prod(model.code_shape)

    def bits(nats_x, nats_z):
        return bits_per_dim(nats_x / num_dims, nats_z / num_codes, num_dims, num_codes)

    return {
        f"{mode}_bits_per_dim": bits(nats_x, nats_z),
        f"{mode}_bits_per_dim_reconstruction": bits(nats_x, 0.0),
        f"{mode}_bits_per_dim_{'latents' if mode == 'bound' else 'codes'}": bits(0.0, nats_z),
    }


def fit_unigram(model, train_batches: Iterable[dict]) -> np.ndarray:
    """The unigram prior of oord2017: one distribution over codes for each latent position, all independent.

    roy2018 says of that paper's 4.67 bits/dim that it "takes a unigram prior for each latent in the sequence
    independently". It is estimated on the argmin codes of the training set as (count + 1/2) / (images + K/2), the
    Krichevsky-Trofimov estimate: a code that training never used at a position still has a probability, and the
    half costs, in the worst case, about as few bits as any such rule can, half of log2(images) for each code.

    Args:
        model: an `ImageAutoencoder`.
        train_batches: as `batches` of `evaluate`, of the training set.

    Returns:
        float64 (n, num_codes), n positions in raster order: log-probabilities in nats.

    Raises:
        InputError: if there are no images or they do not have the model's shape; if the model has no codes.

    Example:
        >>> from vq_keras import bottlenecks
        >>> from vq_keras.models.image import ImageAutoencoder
        >>> model = ImageAutoencoder(bottlenecks.VectorQuantizer(num_codes=16), image_shape=(8, 8, 3))
        >>> fit_unigram(model, [{"images": np.zeros((4, 8, 8, 3), "uint8")}]).shape
        (40, 16)
    """
    if not model.bottleneck.has_codes:
        raise InputError("a unigram prior is one of codes, of which this model has none; leave it out.")
    num_codes, num_ids = math.prod(model.code_shape), model.bottleneck.num_codes
    counts = np.zeros(num_codes * num_ids, "int64")
    num_images = 0
    for size, _, codes, *_ in encoded(model, train_batches):
        num_images += size
        ids = codes[:size].reshape(size, num_codes) + num_ids * np.arange(num_codes)
        counts += np.bincount(ids.ravel(), minlength=len(counts))
    if num_images == 0:
        raise InputError("there are no images to fit a unigram prior to; give at least one.")
    return np.log((counts.reshape(num_codes, num_ids) + 0.5) / (num_images + 0.5 * num_ids))


def table(metrics: dict[str, float], labels: dict[str, tuple[str, str]] = LABELS) -> Table:
    """The figures of `evaluate` as a table for the terminal, those that are there, in the order of `labels`.

    Example:
        >>> rows = table({"psnr": 24.5, "num_images": 1017})  # Print it with `rich.print(rows)`.
    """
    result = Table("figure", "value")
    result.columns[1].justify = "right"
    for name, (label, form) in labels.items():
        if name in metrics:
            result.add_row(label, form.format(metrics[name]))
    return result


def write_json(metrics: dict[str, float], path: str | Path) -> None:
    """Writes figures as JSON, sorted by name, with six decimals, so that equal runs give equal files.

    Args:
        metrics: what `evaluate` gave.
        path: the file to make or to replace, all at once.

    Raises:
        InputError: for a figure that is not finite, which JSON cannot hold.

    Example:
        >>> write_json({"psnr": 24.5}, "/tmp/metrics.json")
    """
    broken = [name for name, value in metrics.items() if not math.isfinite(value)]
    if broken:
        raise InputError(f"{', '.join(broken)}: not finite, so not written to {path}; the model's weights are broken.")
    rounded = {name: round(value, 6) for name, value in metrics.items()}
    replace_file(path, (json.dumps(rounded, indent=2, sort_keys=True) + "\n").encode())
