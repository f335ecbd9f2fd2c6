"""An n-gram language model by dictionaries, word by word."""

import numpy as np


def random_sentences(number, seed=0):
    """Sentences of the words 3 to 8 that end in 1."""
    rng = np.random.default_rng(seed)
    return [[*rng.integers(3, 9, rng.integers(0, 8)).tolist(), 1] for _ in range(number)]


def log_prob_of(orders):
    """log p(word | history) of what `kneser_ney` returns; a history is a tuple of any length."""
    tables, names = [], {0: ()}
    for n, each in enumerate(orders):
        parents = names
        names = {
            place: (*(parents[prefix] if n else ()), word)
            for place, (prefix, word) in enumerate(zip(each.prefix.tolist(), each.word.tolist(), strict=True))
        }
        tables.append({gram: (each.log_prob[place], each.log_backoff[place]) for place, gram in names.items()})

    def log_prob(history, word):
        history = history[max(0, len(history) - len(orders) + 1) :]
        found = tables[len(history)].get((*history, word))
        if found is not None:
            return found[0]
        lack = tables[len(history) - 1].get(history)
        return (0.0 if lack is None else lack[1]) + log_prob(history[1:], word)

    return log_prob
