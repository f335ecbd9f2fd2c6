"""Why a batch was not translated, and what is left of a sentence then."""

from typing import NamedTuple


class Failure(NamedTuple):
    """What stands in the place of a translation.

    `refused`: whether this sentence was refused, by itself; otherwise there was no answer to be had for any.
    """

    reason: str
    refused: bool


class Refused(Exception):
    """This batch cannot be translated as it is; a part of it may be."""


class Unusable(Exception):
    """No batch can be translated: asking again, or for something else, will not help."""


class Unavailable(Exception):
    """There was no answer this time: the same request may be answered later."""
