"""Numbers, dates and times in words, in English and in German, parted by value into training, validation and test.

The number words come from num2words; months, weekdays, hours and what stands between them are written here.
"""

import datetime
import functools
import math
import random
import zlib
from typing import NamedTuple

from vq_keras.errors import InputError

_MONTHS = (
    ("January", "Januar"),
    ("February", "Februar"),
    ("March", "März"),
    ("April", "April"),
    ("May", "Mai"),
    ("June", "Juni"),
    ("July", "Juli"),
    ("August", "August"),
    ("September", "September"),
    ("October", "Oktober"),
    ("November", "November"),
    ("December", "Dezember"),
)
_WEEKDAYS = (
    ("Monday", "Montag"),
    ("Tuesday", "Dienstag"),
    ("Wednesday", "Mittwoch"),
    ("Thursday", "Donnerstag"),
    ("Friday", "Freitag"),
    ("Saturday", "Samstag"),
    ("Sunday", "Sonntag"),
)
# Every five minutes; German counts from half past on, and a little before, to the hour that comes.
_FIVES = (
    ("{hour} o'clock", "{hour} Uhr"),
    ("five past {hour}", "fünf nach {hour}"),
    ("ten past {hour}", "zehn nach {hour}"),
    ("a quarter past {hour}", "Viertel nach {hour}"),
    ("twenty past {hour}", "zwanzig nach {hour}"),
    ("twenty-five past {hour}", "fünf vor halb {next}"),
    ("half past {hour}", "halb {next}"),
    ("twenty-five to {next}", "fünf nach halb {next}"),
    ("twenty to {next}", "zwanzig vor {next}"),
    ("a quarter to {next}", "Viertel vor {next}"),
    ("ten to {next}", "zehn vor {next}"),
    ("five to {next}", "fünf vor {next}"),
)
_YEARS = range(1600, 2100)
# Smaller numbers have words of their own, of which larger ones are put together: none of them may be unseen.
_SMALLEST_NUMBER, _LARGEST_NUMBER, _LARGEST_ORDINAL = 21, 9_999, 999


class Phrase(NamedTuple):
    """A phrase and its translation."""

    english: str
    german: str


def split_of(kind: str, value: int | tuple[int, int]) -> str:
    """The split whose sentences alone use a value: "test" for a tenth of a kind's values, "validation" for another.

    Args:
        kind: "number", "year", "day" or "time".
        value: the number, the year, (month, day), or (hour, minute).

    Example:
        >>> split_of("year", 1984), split_of("year", 1985)
        ('validation', 'train')
    """
    # A checksum, because Python's own hash of a string is another one in every process.
    return {0: "test", 1: "validation"}.get(zlib.crc32(f"{kind} {value}".encode()) % 10, "train")


def draw(kind: str, split: str, rng: random.Random) -> Phrase:
    """A phrase with a value of a split.

    Args:
        kind: "number", "ordinal" (of a number small enough to count visitors), "year", "day", "date" or "time": what
            the function of that name says.
        split: "train", "validation" or "test".
        rng: what draws. Numbers of every length are equally likely: they are drawn by their logarithm.

    Raises:
        InputError: num2words is not installed.

    Example:
        >>> draw("day", "train", random.Random(0))
        Phrase(english='the second of September', german='zweiten September')
    """
    if kind == "number":
        return number(_draw_number(_LARGEST_NUMBER, split, rng))
    if kind == "ordinal":
        return ordinal(_draw_number(_LARGEST_ORDINAL, split, rng))
    if kind == "year":
        return year(rng.choice(_values("year", split)))
    if kind == "day":
        return day(*rng.choice(_values("day", split)))
    if kind == "time":
        return time(*rng.choice(_values("time", split)))
    while True:
        drawn = rng.choice(_values("year", split)), *rng.choice(_values("day", split))
        if _is_date(*drawn):
            return date(*drawn)


def _draw_number(largest: int, split: str, rng: random.Random) -> int:
    while True:
        value = int(math.exp(rng.uniform(math.log(_SMALLEST_NUMBER), math.log(largest + 1))))
        # 101 books may be "hunderteins", "hundertein" or "hundertundein", and a target should be the only one.
        if value % 100 != 1 and split_of("number", value) == split:
            return value


@functools.cache
def _values(kind: str, split: str) -> list:
    """All years, days or times of a split."""
    values = {
        "year": _YEARS,
        "day": [(month, day) for month in range(1, 13) for day in range(1, 32) if _is_date(2000, month, day)],
        # In words every five minutes, but not around noon and midnight, where neither "in the afternoon" nor "in the
        # evening" is said; in figures the minutes between.
        "time": [
            (hour, minute)
            for hour in range(1, 24)
            for minute in range(60)
            if minute % 5 or 6 <= hour <= 11 or 13 <= hour <= 22
        ],
    }[kind]
    return [value for value in values if split_of(kind, value) == split]


def _is_date(year: int, month: int, day: int) -> bool:
    try:
        datetime.date(year, month, day)
    except ValueError:
        return False
    return True


def number(value: int) -> Phrase:
    """1234: "one thousand two hundred and thirty-four", "eintausendzweihundertvierunddreißig"."""
    return Phrase(_words(value, "en", "cardinal").replace(",", ""), _words(value, "de", "cardinal"))


def ordinal(value: int) -> Phrase:
    """312: "three hundred and twelfth", "dreihundertzwölfte"."""
    return Phrase(_words(value, "en", "ordinal").replace(",", ""), _words(value, "de", "ordinal"))


def year(value: int) -> Phrase:
    """1984: "nineteen eighty-four", "neunzehnhundertvierundachtzig"."""
    return Phrase(_words(value, "en", "year"), _words(value, "de", "year"))


def day(month: int, of_month: int) -> Phrase:
    """5, 3: "the third of May", "dritten Mai", which wants "am", "vor dem" and the like."""
    english, german = _MONTHS[month - 1]
    name = ordinal(of_month)
    return Phrase(f"the {name.english} of {english}", f"{name.german}n {german}")


def date(year_: int, month: int, of_month: int) -> Phrase:
    """1984, 5, 3: "Thursday the third of May nineteen eighty-four", "Donnerstag, dem dritten Mai
    neunzehnhundertvierundachtzig,". The last comma is for what follows; the weekday is the true one.
    """
    english, german = _WEEKDAYS[datetime.date(year_, month, of_month).weekday()]
    name, in_year = day(month, of_month), year(year_)
    return Phrase(f"{english} {name.english} {in_year.english}", f"{german}, dem {name.german} {in_year.german},")


def time(hour: int, minute: int) -> Phrase:
    """16, 10: "ten past four in the afternoon", "nachmittags um zehn nach vier"; 16, 23: "sixteen twenty-three",
    "um sechzehn Uhr dreiundzwanzig".
    """
    if minute % 5:
        hours, minutes = number(hour), number(minute)
        oh = "oh-" if minute < 10 else ""
        return Phrase(f"{hours.english} {oh}{minutes.english}", f"um {_before_uhr(hour)} Uhr {minutes.german}")
    english, german = _FIVES[minute // 5]
    this, following = (hour - 1) % 12 + 1, hour % 12 + 1
    english = english.format(hour=number(this).english, next=number(following).english)
    german = german.format(hour=number(this).german if minute else _before_uhr(this), next=number(following).german)
    part = ("morning", "morgens") if hour < 12 else ("afternoon", "nachmittags") if hour < 18 else ("evening", "abends")
    return Phrase(f"{english} in the {part[0]}", f"{part[1]} um {german}")


def _before_uhr(hour: int) -> str:
    return "ein" if hour == 1 else number(hour).german


@functools.cache
def _words(value: int, language: str, to: str) -> str:
    try:
        from num2words import num2words
    except ImportError as error:
        raise InputError(f"Numbers in words need num2words ({error}): pip install 'vq_keras[translation]'.") from error
    return num2words(value, lang=language, to=to)
