"""What comes of a sentence that is translated."""

from typing import NamedTuple


class Translation(NamedTuple):
    """A sentence's translation, its score as the search gives it, and whether the sentence was cut to be translated."""

    text: str
    score: float
    truncated: bool
