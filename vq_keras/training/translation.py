"""What training any translator takes: data and vocabulary, a run that resumes, and its figures on the test set."""

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import keras
from rich.console import Console
from rich.progress import track
from rich.table import Table

from vq_keras import distillation, plots
from vq_keras.data import parallel_text, translation
from vq_keras.data.pair_batches import EncodedPairs, encode_pairs, evaluation_batches, training_batches
from vq_keras.data.translation_data import Pairs, TranslationData
from vq_keras.data.vocabulary import FILE, Vocabulary
from vq_keras.errors import InputError
from vq_keras.training import runs
from vq_keras.training.callbacks import ConsoleProgress, StopOnFailure, TensorBoardLog
from vq_keras.training.checkpoints import Checkpoints
from vq_keras.training.files import replace_file
from vq_keras.training.fit import fit, make_deterministic
from vq_keras.training.ngrams import add_ngrams
from vq_keras.training.optimizer import learning_rate
from vq_keras.training.translation_config import TranslationConfig
from vq_keras.translation_quality import quality
from vq_keras.translator import Translator


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """A set of translations with the vocabulary and as ids.

    Attributes:
        data: the pairs to train on, distilled ones if there are any, and those to watch and to test by.
        own_targets: those that the data have themselves.
        vocabulary, train, validation: as their names say.
    """

    data: TranslationData
    own_targets: list[str]
    vocabulary: Vocabulary
    train: EncodedPairs
    validation: EncodedPairs


def load(config: TranslationConfig, distilled: Path | None = None) -> Corpus:
    """Loads the pairs, and takes the vocabulary of the run, or the one given, or trains one.

    Args:
        config: of the run.
        distilled: the folder that `distillation.distill` wrote, whose pairs and vocabulary are to be trained with.
    """
    files = {name: getattr(config, name) for name in ("train", "validation", "test")}
    data = translation.load(config.dataset, data_dir=config.data_dir, languages=config.languages, **files)
    own_targets = data.train.targets
    if distilled is not None:
        pairs = parallel_text.read(distilled / distillation.SOURCE, distilled / distillation.TARGET)
        data = dataclasses.replace(data, train=pairs)
    own = config.run_dir / FILE
    given = config.vocabulary or (None if distilled is None else distilled / FILE)
    if given is not None:
        vocabulary = Vocabulary.load(given)
        if config.vocabulary_size is not None:
            raise InputError(f"--vocabulary-size is of a vocabulary to train, but {given} is to be used: leave it out.")
        if own.exists() and Vocabulary.load(own).fingerprint != vocabulary.fingerprint:
            raise InputError(f"{config.run_dir} has another vocabulary than {given}: give another --run-dir.")
    elif own.exists():
        vocabulary = Vocabulary.load(own)
    else:
        size = 1000 if config.vocabulary_size is None else config.vocabulary_size
        vocabulary = Vocabulary.train(data.train, size)
    train = encode_pairs(vocabulary, data.train, config.max_length, config.subword_dropout, config.seed)
    validation = encode_pairs(vocabulary, data.validation, config.max_length)
    for name, encoded, pairs in (("training", train, data.train), ("validation", validation, data.validation)):
        if encoded.num_dropped:
            print(
                f"{encoded.num_dropped:,} of {len(pairs.sources):,} {name} pairs have more than {config.max_length} "
                "subwords on a side and are left out."
            )
    return Corpus(data, own_targets, vocabulary, train, validation)


def train(
    config: TranslationConfig,
    corpus: Corpus,
    make_model: Callable[[], keras.Model],
    make_search: Callable[[keras.Model], keras.Model],
    columns=("nll", "accuracy"),
    num_codes: int | None = None,
    target_multiple: int = 8,
    order: int = 0,
):
    """Trains a translator, or goes on where a killed run of the same configuration was.

    Args:
        config: of the run.
        corpus: what `load` gave.
        make_model: makes the model; called once, when seed and precision are set.
        make_search: the search for the sample translations of TensorBoard, and to choose how n-grams count.
        columns: metrics to show.
        num_codes: of the codebook, to be watched for a collapse; None if the model has none.
        target_multiple: what targets are padded to multiples of.
        order: of the n-grams that the trained model gets; 0 for none.

    Returns:
        The model, with the mean of the weights of its last checkpoints and with n-grams where it gains by them, and
        saved in the run's folder.
    """
    keras.config.set_dtype_policy(config.precision)
    make_deterministic(config.seed)
    model = make_model()
    # The steps of the released code's Adam, but for its second moments, which forget faster (Vaswani et al. 2017).
    model.compile(keras.optimizers.Adam(learning_rate(config), beta_2=0.98, epsilon=1e-9))

    decisive = {**config.decisive(), "vocabulary": corpus.vocabulary.fingerprint}
    decisive["languages"] = list(config.languages)  # As JSON has it.
    # Files may move, but a run does not go on with other pairs.
    text = "\n".join(itertools.chain(*corpus.data.train))
    decisive["pairs"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    translator = Translator(make_search(model), corpus.vocabulary, config.max_length)
    batches = functools.partial(
        training_batches, corpus.train, config.tokens_per_batch, config.seed, target_multiple=target_multiple
    )
    validation = evaluation_batches(corpus.validation, config.tokens_per_batch, target_multiple)
    batches(0)
    # The folder is made when nothing is left that could be wrong with the configuration.
    runs.claim(config.run_dir, decisive)
    corpus.vocabulary.save(config.run_dir / FILE)
    sources, references = (side[:8] for side in corpus.data.validation)

    def samples():
        found = [each.text for each in translator.translate(sources)]
        rows = [f"| {' | '.join(row)} |" for row in zip(sources, references, found, strict=True)]
        return {"translations": "\n".join(["| source | reference | translation |", "| --- | --- | --- |", *rows])}

    history = fit(
        model,
        batches,
        config.steps,
        config.run_dir,
        config.interval,
        callbacks=[
            StopOnFailure(num_codes=num_codes),
            ConsoleProgress(
                config.steps, config.tokens_per_batch, (*columns, "val_nll"), config.run_dir.name, "tokens"
            ),
            TensorBoardLog(config.run_dir / "tensorboard", texts=samples),
        ],
        keep=max(2, config.average),
        validation=validation,
    )
    plots.learning_curves(config.run_dir / "curves.png", {config.run_dir.name: history})
    Checkpoints(config.run_dir / "checkpoints").restore_mean(model, config.average)
    runs.save_model(model, config.run_dir)
    if order:
        # What took hours is safe whatever comes of them.
        text, validation = corpus.own_targets, corpus.data.validation
        add_ngrams(model, make_search, corpus.vocabulary, text, validation, order, config.max_length)
        runs.save_model(model, config.run_dir)
    return model


def report(
    run_dir: Path,
    vocabulary: Vocabulary,
    test: Pairs,
    searches: dict[str, keras.Model],
    max_length: int,
    tokens_per_batch: int = 1024,
    called: Path | None = None,
) -> dict[str, dict]:
    """Translates the test set with each search: prints the figures, and writes them and the translations.

    Args:
        run_dir: the folder to write to.
        vocabulary: that of the models.
        test: the test set.
        searches: by names for files and figures.
        max_length, tokens_per_batch: as for `Translator`.
        called: what the folder will be called, if it is renamed then.

    Returns:
        What `translation_quality.quality` says of each.
    """
    figures = {}
    sources, references = test
    table = Table("test set", "BLEU", "chrF")
    for name, search in searches.items():
        translator = Translator(search, vocabulary, max_length, tokens_per_batch)
        found = translator.translate(sources, lambda batches, name=name: track(batches, name))
        texts = [each.text for each in found]
        replace_file(run_dir / f"test.{name}.txt", "".join(f"{text}\n" for text in texts).encode())
        figures[name] = quality(texts, references)
        table.add_row(name, f"{figures[name]['bleu']:.2f}", f"{figures[name]['chrf']:.2f}")
    replace_file(run_dir / "metrics.json", (json.dumps(figures, indent=2) + "\n").encode())
    Console().print(table)
    if num_truncated := sum(each.truncated for each in found):
        print(f"{num_truncated:,} of {len(sources):,} sources were cut to {max_length} subwords.")
    print(f"{figures[name]['bleu_signature']}; model, translations and metrics.json: {called or run_dir}")
    return figures
