"""A latent Transformer from its configuration: model, training and report."""

import dataclasses

from vq_keras.models.latent_transformer import LatentTransformer, check_bottleneck
from vq_keras.models.sizes import sizes_of
from vq_keras.search import LatentSearch
from vq_keras.training import bottleneck_options, runs, translation
from vq_keras.training.latent_transformer_config import LatentTransformerConfig, resolve
from vq_keras.training.warm_start import continue_from, freeze_codes, start_from


def make_bottleneck(config):
    options = dataclasses.asdict(config)
    return bottleneck_options.make_bottleneck(
        config.bottleneck, options, config.bottleneck_arguments, config.steps, config.hidden_dim
    )


def make_model(config, vocabulary_size, teacher, start):
    sizes = sizes_of("latent Transformer", config.architecture)
    model = LatentTransformer(
        vocabulary_size,
        make_bottleneck(config),
        config.num_compress_steps,
        **sizes | {"hidden_dim": config.hidden_dim, "dropout": config.dropout},
        decoder=config.decoder,
        attend_to_source=config.attend_to_source,
        predictor_gradient=config.predictor_gradient,
        startup_steps=round(config.startup * config.steps),
        annealing_steps=round(config.annealing * config.steps),
        predicted_share=config.predicted,
        predicted_from_step=round(config.predicted_from * config.steps),
        draft_share=config.draft,
        bigram_share=config.bigrams,
        seed=config.seed,
    )
    if start is not None:
        continue_from(model, start)
        if config.freeze_codes:
            freeze_codes(model)
    elif teacher is not None:
        start_from(model, teacher)
    return model


def check(config: LatentTransformerConfig) -> LatentTransformerConfig:
    """The configuration with everything filled in, or an `InputError`; reads no data."""
    config = resolve(config)
    check_bottleneck(make_bottleneck(config))
    return config


def run(config: LatentTransformerConfig) -> dict[str, dict]:
    """Trains, or goes on where a killed run of the same configuration was, and translates the test set.

    Returns:
        BLEU and chrF of each search, as `metrics.json` in the run's folder has them.

    Raises:
        InputError: the configuration cannot be run.
    """
    config = check(config)
    corpus = translation.load(config, config.distilled)
    teacher = None if config.teacher is None else runs.load_judge(config.teacher, corpus.vocabulary)
    start = None if config.start is None else runs.load_start(config.start, corpus.vocabulary, LatentTransformer)
    model = translation.train(
        config,
        corpus,
        lambda: make_model(config, corpus.vocabulary.size, teacher, start),
        LatentSearch,
        columns=("nll", "accuracy", "bigram_f1", "nll_z", "codes_in_use"),
        num_codes=make_bottleneck(config).num_codes,
        target_multiple=2**config.num_compress_steps,
        order=config.ngrams,
    )
    searches = {"greedy": LatentSearch(model), "greedy-double-length": LatentSearch(model, length="double")}
    if config.draft:
        searches["refined"] = LatentSearch(model, refinements=1)
    if config.candidates:
        best = f"{config.candidates}-candidates"
        searches[best] = LatentSearch(model, config.candidates)
        if teacher is not None:
            searches[f"{best}-judged"] = LatentSearch(model, config.candidates, teacher)
        if teacher is not None and config.draft:
            searches[f"{best}-refined-judged"] = LatentSearch(model, config.candidates, teacher, refinements=1)
    return translation.report(config.run_dir, corpus.vocabulary, corpus.data.test, searches, config.max_length)
