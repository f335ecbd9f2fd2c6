"""What every source of translations becomes: pairs of sentences to train on, to choose by and to test on."""

import dataclasses
from typing import NamedTuple

from vq_keras.errors import InputError


class Pairs(NamedTuple):
    """Sentences and their translations: `targets[i]` translates `sources[i]`."""

    sources: list[str]
    targets: list[str]


@dataclasses.dataclass(frozen=True, eq=False)
class TranslationData:
    """Translations to train on, to choose a model by, and to test it on.

    Args:
        name: where they came from, for messages and reports.
        train: pairs to train on.
        validation: pairs to choose a model by.
        test: pairs to report on.

    Raises:
        InputError: a part has no pairs, or another number of sources than of targets.

    Example:
        >>> pairs = Pairs(["two books"], ["zwei Bücher"])
        >>> TranslationData("books", pairs, pairs, pairs).train.targets
        ['zwei Bücher']
    """

    name: str
    train: Pairs
    validation: Pairs
    test: Pairs

    def __post_init__(self):
        for part in ("train", "validation", "test"):
            sources, targets = getattr(self, part)
            if len(sources) != len(targets):
                raise InputError(
                    f"'{part}' of {self.name} has {len(sources)} sources and {len(targets)} targets: "
                    "each sentence needs its translation."
                )
            if not sources:
                raise InputError(f"'{part}' of {self.name} has no pairs.")
