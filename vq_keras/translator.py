"""Sentences to translations, in batches of sentences of about one length."""

import string
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from vq_keras.data.vocabulary import EOS, PAD, Vocabulary
from vq_keras.errors import InputError
from vq_keras.translation import Translation

# Sources are padded to a multiple of this, so that there are few shapes to compile.
_MULTIPLE = 8


class Translator:
    """A search with the vocabulary that its model was trained with.

    Args:
        search: of `vq_keras.search`, or what else has their `predict_on_batch`.
        vocabulary: that of the model.
        max_length: the ids of the longest source, EOS among them; longer ones are cut to it.
        tokens_per_batch: padded source ids in a batch; a longer source is one of its own.

    Raises:
        InputError: max_length is below 2, a word and EOS.

    Example:
        >>> translator = Translator(AutoregressiveSearch(model), vocabulary, max_length=100)
        >>> translator.translate(["two books"])
        [Translation(text='zwei Bücher', score=-0.05, truncated=False)]
    """

    def __init__(self, search, vocabulary: Vocabulary, max_length: int, tokens_per_batch: int = 1024):
        if max_length < 2:
            raise InputError(f"max_length is {max_length}; give 2 or more.")
        self.search = search
        self.vocabulary = vocabulary
        self.max_length = max_length
        self.tokens_per_batch = tokens_per_batch

    def translate(self, sentences: Sequence[str], track: Callable[[list], Iterable] = iter) -> list[Translation]:
        """Translates sentences.

        Args:
            sentences: any number of texts; one that is empty, or blank, has an empty translation.
            track: is given the list of batches and iterates over it, to show progress: `rich.progress.track`.

        Returns:
            The translations in the order of the sentences. One that was longer than `max_length` is translated as far
            as that, and says so.

        Raises:
            InputError: a sentence is no Unicode.
        """
        # A model has something to say of spaces, too, and none of it is a translation.
        rows = self.vocabulary.encode([text if text.strip(string.whitespace) else "" for text in sentences])
        cut = [len(row) > self.max_length for row in rows]
        rows = [
            np.append(row[: self.max_length - 1], EOS) if long else row for row, long in zip(rows, cut, strict=True)
        ]
        found = [Translation("", 0.0, False)] * len(rows)
        for chosen, source in track(self._batches(rows)):
            outputs = self.search.predict_on_batch(source)
            texts = self.vocabulary.decode(np.asarray(outputs["tokens"])[: len(chosen)])
            for i, text, score in zip(chosen, texts, np.asarray(outputs["scores"]), strict=False):
                found[i] = Translation(text, float(score), cut[i])
        return found

    def _batches(self, rows: list[np.ndarray]) -> list[tuple[list[int], np.ndarray]]:
        """Which rows each batch holds, and their ids; batches of one length have one size, filled up with EOS."""
        by_length: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            if len(row) > 1:  # More than EOS.
                by_length.setdefault(-(-len(row) // _MULTIPLE) * _MULTIPLE, []).append(i)
        batches = []
        for length, members in sorted(by_length.items()):
            size = min(max(1, self.tokens_per_batch // length), 2 ** (len(members) - 1).bit_length())
            for start in range(0, len(members), size):
                chosen = members[start : start + size]
                source = np.full((size, length), PAD, np.int32)
                source[:, 0] = EOS
                for place, i in zip(source, chosen, strict=False):
                    place[: len(rows[i])] = rows[i]
                batches.append((chosen, source))
        return batches
