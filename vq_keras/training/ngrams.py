"""A language model for the search of a trained translator with connectionist temporal classification."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
from rich.progress import track

from vq_keras.data.translation_data import Pairs
from vq_keras.data.vocabulary import EOS, Vocabulary
from vq_keras.layers import NGrams
from vq_keras.translation_quality import quality
from vq_keras.translator import Translator

# Weights of the language model, and the bonus of a word for a weight of 1; the first of each is tried first.
WEIGHTS, RATIOS = (1.0, 0.5, 1.5, 2.0), (5.0, 4.0, 6.0)
# Sentences to choose them by, at most, spread evenly over the set: it may be sorted by length.
MOST = 1000


def add_ngrams(
    model,
    make_search: Callable[[keras.Model], keras.Model],
    vocabulary: Vocabulary,
    text: Sequence[str],
    validation: Pairs,
    order: int,
    max_length: int,
) -> float:
    """Gives a model the n-grams of a text in its target language, with the weights that translate best.

    Weight and bonus are those, of a few, with which the model's translations of the validation set have the highest
    BLEU. Where it has a higher one without n-grams, it gets none.

    Args:
        model: a trained `LatentTransformer` or `ParallelTransformer` with "ctc"; its `ngrams` are set.
        make_search: the search to translate with.
        vocabulary: that of the model.
        text: sentences of the target language, such as the training set's: people's rather than a teacher's.
        validation: pairs that neither were trained on.
        order: n.
        max_length: subwords of the longest source.

    Returns:
        BLEU on the validation set.

    Example:
        >>> add_ngrams(model, LatentSearch, vocabulary, data.train.targets, data.validation, order=4, max_length=100)
        36.85
    """
    places = np.linspace(0, len(validation.sources), min(MOST, len(validation.sources)), endpoint=False, dtype=int)
    pairs = Pairs(*([side[place] for place in places] for side in validation))
    model.ngrams = None
    best = (_bleu(make_search(model), vocabulary, pairs, max_length), None)
    ngrams = NGrams.fit(vocabulary.encode(text), vocabulary.size, order, EOS)
    model.ngrams = ngrams
    search = make_search(model)

    def tried(weight, ratio):
        ngrams.weight.assign(weight)
        ngrams.bonus.assign(weight * ratio)
        return _bleu(search, vocabulary, pairs, max_length), (weight, ratio)

    for weight in track(WEIGHTS, f"{order}-grams: how much they count"):
        best = max(best, tried(weight, RATIOS[0]), key=lambda each: each[0])
    if best[1] is not None:
        for ratio in track(RATIOS[1:], f"{order}-grams: what a word is worth"):
            best = max(best, tried(best[1][0], ratio), key=lambda each: each[0])
    bleu, chosen = best
    if chosen is None:
        model.ngrams = None
        print(f"{order}-grams would not translate better: {bleu:.2f} BLEU on the validation set without them.")
        return bleu
    weight, ratio = chosen
    ngrams.weight.assign(weight)
    ngrams.bonus.assign(weight * ratio)
    print(f"{order}-grams: {bleu:.2f} BLEU on the validation set, weight {weight}, {weight * ratio} for a word.")
    return bleu


def _bleu(search, vocabulary, pairs, max_length):
    found = Translator(search, vocabulary, max_length).translate(pairs.sources)
    return quality([each.text for each in found], pairs.targets)["bleu"]
