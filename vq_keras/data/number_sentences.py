"""English sentences with numbers, dates and times, and their German translations: endless, and without a download.

What a model has to learn: number words ("three thousand two hundred and twenty-six" is one word, with the six before
the twenty), the verb's place (second, first in a question, last behind "dass" and "weil"), verbs that part ("holte ...
ab", "abholte", "abgeholt"), time before object, day before hour, and the half hour that is counted to the next.

Every English sentence has one translation. No value (a number, a year, a day, a time of day) that stands in a test
sentence stands in a training sentence, nor the other way round: what is tested are unseen numbers, of known words.
"""

import functools
import itertools
import random
import string
from collections.abc import Iterator
from typing import NamedTuple

from vq_keras.data import number_phrases
from vq_keras.data.number_phrases import Phrase
from vq_keras.data.translation_data import Pairs, TranslationData

_SIZES = {"train": 50_000, "validation": 1_000, "test": 1_000}
_MOST_WORDS = 25

# When, by tense, and for journeys, which have an hour.
_TIMES = {
    "past": (
        Phrase("on {day}", "am {day}"),
        Phrase("on {date}", "am {date}"),
        Phrase("in {year}", "im Jahr {year}"),
        Phrase("before {day}", "vor dem {day}"),
        Phrase("at {time}", "{time}"),
        Phrase("at {time} on {day}", "am {day} {time}"),
        Phrase("at {time} on {date}", "am {date} {time}"),
    ),
    "perfect": (
        Phrase("since {day}", "seit dem {day}"),
        Phrase("since {date}", "seit {date}"),
        Phrase("since {year}", "seit {year}"),
    ),
    "future": (
        Phrase("on {day}", "am {day}"),
        Phrase("by {day}", "bis zum {day}"),
        Phrase("at {time}", "{time}"),
        Phrase("at {time} on {day}", "am {day} {time}"),
    ),
    "journey": (
        Phrase("at {time}", "{time}"),
        Phrase("at {time} on {day}", "am {day} {time}"),
        Phrase("at {time} on {date}", "am {date} {time}"),
    ),
}


class _Verb(NamedTuple):
    """In English past, participle, infinitive; in German past, what of it goes to the end, participle, infinitive."""

    past: str
    participle: str
    infinitive: str
    german_past: str
    german_particle: str
    german_participle: str
    german_infinitive: str


# Of people and houses, with so and so many things.
_TRADES = (
    _Verb("bought", "bought", "buy", "kaufte", "", "gekauft", "kaufen"),
    _Verb("sold", "sold", "sell", "verkaufte", "", "verkauft", "verkaufen"),
    _Verb("ordered", "ordered", "order", "bestellte", "", "bestellt", "bestellen"),
    _Verb("counted", "counted", "count", "zählte", "", "gezählt", "zählen"),
    _Verb("found", "found", "find", "fand", "", "gefunden", "finden"),
    _Verb("picked up", "picked up", "pick up", "holte", "ab", "abgeholt", "abholen"),
    _Verb("handed in", "handed in", "hand in", "gab", "ab", "abgegeben", "abgeben"),
    _Verb("sent back", "sent back", "send back", "schickte", "zurück", "zurückgeschickt", "zurückschicken"),
    _Verb("unpacked", "unpacked", "unpack", "packte", "aus", "ausgepackt", "auspacken"),
)
# Of trains and the like, at a time of day.
_MOVES = (
    _Verb("left", "left", "leave", "fuhr", "ab", "abgefahren", "abfahren"),
    _Verb("arrived", "arrived", "arrive", "kam", "an", "angekommen", "ankommen"),
    _Verb("stopped", "stopped", "stop", "hielt", "an", "angehalten", "anhalten"),
)
_TRADERS = (
    Phrase("the {ordinal} visitor", "der {ordinal} Besucher"),
    Phrase("the {ordinal} guest", "der {ordinal} Gast"),
    Phrase("the {ordinal} customer", "der {ordinal} Kunde"),
    Phrase("the museum", "das Museum"),
    Phrase("the school", "die Schule"),
    Phrase("the library", "die Bibliothek"),
    Phrase("the baker", "der Bäcker"),
    Phrase("the company", "die Firma"),
    Phrase("my sister", "meine Schwester"),
    Phrase("her brother", "ihr Bruder"),
    Phrase("our neighbour", "unser Nachbar"),
    Phrase("the hotel", "das Hotel"),
)
_TRAVELLERS = tuple(
    Phrase(f"{vehicle[0]} to {city[0]}", f"{vehicle[1]} nach {city[1]}")
    for vehicle in (("the train", "der Zug"), ("the bus", "der Bus"), ("the ferry", "die Fähre"))
    for city in (("Hamburg", "Hamburg"), ("Vienna", "Wien"), ("Venice", "Venedig"), ("Copenhagen", "Kopenhagen"))
)
_THINGS = (
    Phrase("{number} books", "{number} Bücher"),
    Phrase("{number} tickets", "{number} Karten"),
    Phrase("{number} apples", "{number} Äpfel"),
    Phrase("{number} letters", "{number} Briefe"),
    Phrase("{number} chairs", "{number} Stühle"),
    Phrase("{number} bicycles", "{number} Fahrräder"),
    Phrase("{number} lamps", "{number} Lampen"),
    Phrase("{number} bottles", "{number} Flaschen"),
    Phrase("{number} stamps", "{number} Briefmarken"),
    Phrase("{number} rolls", "{number} Brötchen"),
)
_SPEAKERS = (
    Phrase("my grandmother says", "meine Großmutter sagt"),
    Phrase("the newspaper claims", "die Zeitung behauptet"),
    Phrase("everyone knows", "jeder weiß"),
    Phrase("the teacher believes", "der Lehrer glaubt"),
)


class _Tense(NamedTuple):
    """A verb in a tense.

    In English it stands together, or for a question around the subject. In German it is parted, the finite verb second
    and the rest at the end, or all of it comes last.
    """

    verb: str
    question: tuple[str, str]
    finite: str
    end: str
    last: str


class _Clause(NamedTuple):
    """A clause in the orders that its words can have."""

    main: Phrase
    time_first: Phrase
    question: Phrase
    subordinate: Phrase


def _past(verb: _Verb) -> _Tense:
    finite, end = verb.german_past, verb.german_particle
    return _Tense(verb.past, ("did", verb.infinitive), finite, end, end + finite)


def _perfect(verb: _Verb) -> _Tense:
    end = verb.german_participle
    return _Tense(f"has {verb.participle}", ("has", verb.participle), "hat", end, f"{end} hat")


def _future(verb: _Verb) -> _Tense:
    end = verb.german_infinitive
    return _Tense(f"will {verb.infinitive}", ("will", verb.infinitive), "wird", end, f"{end} wird")


_TENSES = {"past": _past, "perfect": _perfect, "future": _future}


def _clause(subject: Phrase, tense: _Tense, things: Phrase, time: Phrase) -> _Clause:
    (who, wer), (what, was), (when, wann) = subject, things, time
    before, behind = tense.question
    main = _say(who, tense.verb, what, when)
    return _Clause(
        Phrase(main, _say(wer, tense.finite, wann, was, tense.end)),
        Phrase(_say(when, who, tense.verb, what), _say(wann, tense.finite, wer, was, tense.end)),
        Phrase(_say(before, who, behind, what, when), _say(tense.finite, wer, wann, was, tense.end)),
        Phrase(main, _say(wer, wann, was, tense.last)),
    )


def _say(*words: str) -> str:
    return " ".join(word for word in words if word)


class _Writer:
    """Writes sentences with the values of one split."""

    def __init__(self, split: str, seed: int):
        self._split = split
        # Python turns a string into the same numbers in every process.
        self._rng = random.Random(f"{split} {seed}")

    def sentence(self) -> Phrase:
        kinds = (self._fragment, self._main, self._time_first, self._question, self._that, self._because, self._and)
        while True:
            english, german = self._rng.choice(kinds)()
            if len(english.split()) <= _MOST_WORDS:
                return Phrase(english[0].upper() + english[1:], german[0].upper() + german[1:])

    def _fragment(self) -> Phrase:
        english, german = self._one_of(self._rng.choice((_THINGS, _TIMES["past"])))
        return Phrase(f"{english}.", f"{german.removesuffix(',')}.")

    def _main(self) -> Phrase:
        return _put("{}.", "{}.", self._clause().main)

    def _time_first(self) -> Phrase:
        return _put("{}.", "{}.", self._clause().time_first)

    def _question(self) -> Phrase:
        return _put("{}?", "{}?", self._clause().question)

    def _that(self) -> Phrase:
        return _put("{} that {}.", "{}, dass {}.", self._one_of(_SPEAKERS), self._clause().subordinate)

    def _because(self) -> Phrase:
        return _put("{} because {}.", "{}, weil {}.", self._clause().main, self._clause().subordinate)

    def _and(self) -> Phrase:
        return _put("{} and {}.", "{} und {}.", self._clause().main, self._clause().time_first)

    def _clause(self) -> _Clause:
        tense = self._rng.choice(tuple(_TENSES))
        if tense != "perfect" and self._rng.random() < 0.3:
            verb = _TENSES[tense](self._rng.choice(_MOVES))
            return _clause(self._one_of(_TRAVELLERS), verb, Phrase("", ""), self._one_of(_TIMES["journey"]))
        verb = _TENSES[tense](self._rng.choice(_TRADES))
        return _clause(self._one_of(_TRADERS), verb, self._one_of(_THINGS), self._one_of(_TIMES[tense]))

    def _one_of(self, templates: tuple[Phrase, ...]) -> Phrase:
        """A template, its fields filled with phrases of the kinds that they name."""
        template = self._rng.choice(templates)
        values = {kind: number_phrases.draw(kind, self._split, self._rng) for kind in _fields(template)}
        return Phrase(
            template.english.format_map({kind: value.english for kind, value in values.items()}),
            template.german.format_map({kind: value.german for kind, value in values.items()}),
        )


@functools.cache
def _fields(template: Phrase) -> list[str]:
    return [kind for _, kind, _, _ in string.Formatter().parse(template.english) if kind]


def _put(english: str, german: str, *parts: Phrase) -> Phrase:
    return Phrase(english.format(*(part.english for part in parts)), german.format(*(part.german for part in parts)))


def sentences(split: str, seed: int = 0) -> Iterator[Phrase]:
    """Sentences and their translations, for ever.

    Args:
        split: "train", "validation" or "test": no two share a value.
        seed: an integer; the same gives the same sentences, in any process.

    Yields:
        Sentences of 2 to 25 English words.

    Raises:
        InputError: num2words is not installed.

    Example:
        >>> next(sentences("validation")).german
        'Die Zeitung behauptet, dass der Zug nach Wien um zwölf Uhr vierzehn anhielt.'
    """
    writer = _Writer(split, seed)
    while True:
        yield writer.sentence()


def load() -> TranslationData:
    """The source "numbers" of `vq_keras.data.translation.load`: 50,000 train, 1,000 validation, 1,000 test pairs.

    Every time the same ones, made in a few seconds.

    Raises:
        InputError: num2words is not installed.
    """
    parts = (itertools.islice(sentences(split), size) for split, size in _SIZES.items())
    return TranslationData("numbers", *(Pairs(*map(list, zip(*part, strict=True))) for part in parts))
