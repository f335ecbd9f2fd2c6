"""Which of the waiting sentences go together."""

import heapq
from typing import NamedTuple


class Sentence(NamedTuple):
    """A sentence, and how many came before it."""

    index: int
    text: str


def take_batch(waiting: list[Sentence], size: int) -> list[Sentence]:
    """Takes the oldest sentence, for which output waits, and those of the others that are nearest to it in length.

    Args:
        waiting: at least one, the oldest first; what is taken is removed from it.
        size: of the batch, where so many are waiting.

    Returns:
        The batch, the oldest sentence first.

    Example:
        >>> waiting = [Sentence(i, text) for i, text in enumerate(["two books", "no", "the house"])]
        >>> [sentence.text for sentence in take_batch(waiting, 2)]
        ['two books', 'the house']
        >>> waiting
        [Sentence(index=1, text='no')]
    """
    length = len(waiting[0].text)
    batch = heapq.nsmallest(size, waiting, key=lambda sentence: abs(len(sentence.text) - length))
    taken = {sentence.index for sentence in batch}
    waiting[:] = [sentence for sentence in waiting if sentence.index not in taken]
    return batch
