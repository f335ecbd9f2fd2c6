"""The command line of latent Transformers; light to import, so that --help is quick."""

import dataclasses
from pathlib import Path
from typing import ClassVar

from vq_keras.errors import InputError
from vq_keras.training.slots_config import SlotsConfig


@dataclasses.dataclass(frozen=True)
class LatentTransformerConfig(SlotsConfig):
    """Train a latent Transformer (roy2018) to translate, and report BLEU on the test set.

    Writes the run's folder: model.keras, vocabulary.model, metrics.json, the test set's translations, history.csv,
    curves.png, TensorBoard logs and checkpoints. The same command again continues a run that was interrupted.
    """

    PLACES: ClassVar = (*SlotsConfig.PLACES, "distilled", "teacher", "start")

    distilled: Path | None = None
    """What recipes/distill.py wrote: pairs to train on in place of the data's own, and the vocabulary."""
    start: Path | None = None
    """A run, or a preset, whose model this one starts from, as far as it has the same parts, also with more layers or
    fewer; it needs the same vocabulary (--vocabulary RUN/vocabulary.model, or --distilled by the same teacher). Its
    codes need no --startup."""
    freeze_codes: bool = False
    """Whether the codes stay as they are in --start, so that their predictor learns what does not move."""
    teacher: Path | None = None
    """The run of a teacher of the same width and vocabulary: the model starts from its embedding, encoder and decoder,
    and it chooses among the candidates of the report. Else they start at random, and the model chooses."""
    candidates: int = 10
    """Of which the report has the best besides; 0 leaves these searches, the longest of all, to
    evaluate_translation.py, which has them for any run."""
    architecture: str = "small"
    """small (4 + 2 + 4 layers of width 128: encoder, latent predictor, decoder), small_fast (6 + 1 + 2 of 128), base
    (6 + 6 + 6 of 512), fast (12 + 1 + 2 of 512)."""
    hidden_dim: int | None = None
    """Width; by architecture."""
    num_compress_steps: int = 3
    """A code stands for 2 to the power of this many tokens."""
    decoder: str = "causal_shifted"
    """causal_shifted (as released: a token sees what was decompressed before it), bidirectional, or ctc: bidirectional,
    with two slots for each token's place and connectionist temporal classification."""
    attend_to_source: bool = False
    """Whether the target's encoder attends to the source."""
    predictor_gradient: bool = True
    """Whether the loss of the latent predictor moves the codes."""
    startup: float = 0.1
    """Share of the run in which latents become codes bit by bit: the decoder first gets them as they are."""
    annealing: float = 0.0
    """Share of the run in which the decoder is weaned off the target's own tokens (causal_shifted alone)."""
    predicted: float = 0.0
    """Share of the sentences which are decoded from predicted codes, instead of their own (for ctc)."""
    predicted_from: float = 0.5
    """Share of the run after which they are."""
    draft: float = 0.0
    """Share of the sentences for which the decoder reads what it wrote, so that translations can be refined
    (bidirectional alone)."""

    bottleneck: str = "soft_em"
    """soft_em (Monte-Carlo EM), vector_quantizer (hard EM with --update ema), gumbel_softmax, semantic_hashing, or
    another with one code for each latent: finite_scalar, lookup_free, binary_spherical, sim_vq, cosine,
    random_projection."""
    bottleneck_arguments: str = "{}"
    """More arguments of the bottleneck, as JSON."""
    update: str = "ema"
    """How vector_quantizer learns its codebook: ema or gradient."""
    num_codes: int = 512
    """Codes in the codebook."""
    num_samples: int = 10
    """Of soft_em's draws for each latent."""
    temperature: float | None = None
    """Of soft_em's draws; width / 512, as sharp as roy2018's 1 is for its 512 dimensions."""
    decay: float | None = None
    """Of the codebook's moving averages; by the numbers of latents and codes where not given."""
    commitment_weight: float = 0.25
    """Weight of the commitment loss."""


def resolve(config):
    """The configuration with everything filled in that depends on other choices."""
    from vq_keras.models.sizes import sizes_of

    config.check()
    sizes = sizes_of("latent Transformer", config.architecture)
    name = f"{config.dataset.replace('/', '-')}-{config.architecture}-{config.bottleneck}"
    config = dataclasses.replace(
        config,
        run_dir=config.run_dir or Path("runs") / name,
        hidden_dim=config.hidden_dim or sizes["hidden_dim"],
    )
    for name in ("startup", "annealing", "predicted_from"):
        share = getattr(config, name)
        if not 0 <= share < 1:
            option = name.replace("_", "-")
            raise InputError(f"--{option} is {share}; give a share of the run, from 0 up to, not including, 1.")
    if not 0 <= config.predicted <= 1:
        raise InputError(f"--predicted is {config.predicted}; give a share of the sentences, from 0 to 1.")
    if config.candidates < 0 or config.candidates == 1:
        raise InputError(f"--candidates is {config.candidates}; give 2 or more, or 0 for none.")
    if config.freeze_codes and config.start is None:
        raise InputError("--freeze-codes keeps the codes of another run's model: give that run with --start.")
    temperature = config.hidden_dim / 512 if config.temperature is None else config.temperature
    config = config.with_slots(config.decoder, f"--decoder ctc: the tokens of {config.decoder} have their places.")
    return dataclasses.replace(config, temperature=temperature)
