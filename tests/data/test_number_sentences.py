import itertools
import re

import pytest

from vq_keras.data import number_sentences, translation
from vq_keras.data.number_phrases import Phrase
from vq_keras.data.number_sentences import _MOVES, _TENSES, _TRADES, _clause

pytest.importorskip("num2words", reason="number words come from num2words")


def take(split, number, seed=0):
    return list(itertools.islice(number_sentences.sentences(split, seed), number))


@pytest.mark.parametrize(
    "split, english, german",
    [
        (
            "train",
            "Since the sixth of February the seven hundred and forty-third visitor has unpacked forty-eight stamps.",
            "Seit dem sechsten Februar hat der siebenhundertdreiundvierzigste Besucher achtundvierzig Briefmarken "
            "ausgepackt.",
        ),
        (
            "validation",
            "The newspaper claims that the train to Vienna stopped at twelve fourteen.",
            "Die Zeitung behauptet, dass der Zug nach Wien um zwölf Uhr vierzehn anhielt.",
        ),
        (
            "test",
            "The baker has bought two thousand three hundred and eighty-four bottles since eighteen ninety.",
            "Der Bäcker hat seit achtzehnhundertneunzig zweitausenddreihundertvierundachtzig Flaschen gekauft.",
        ),
    ],
)
def test_every_process_begins_with_the_same_sentence(split, english, german):
    assert take(split, 1) == [(english, german)]


THINGS = Phrase("ninety lamps", "neunzig Lampen")
TIME = Phrase("on the third of May", "am dritten Mai")
BAKER, TRAIN = Phrase("the baker", "der Bäcker"), Phrase("the train", "der Zug")
VERBS = {verb.infinitive: verb for verb in _TRADES + _MOVES}


@pytest.mark.parametrize(
    "tense, subject, verb, things, english, german",
    [
        (
            "past",
            BAKER,
            "pick up",
            THINGS,
            (
                "the baker picked up ninety lamps on the third of May",
                "on the third of May the baker picked up ninety lamps",
                "did the baker pick up ninety lamps on the third of May",
                "the baker picked up ninety lamps on the third of May",
            ),
            (
                "der Bäcker holte am dritten Mai neunzig Lampen ab",
                "am dritten Mai holte der Bäcker neunzig Lampen ab",
                "holte der Bäcker am dritten Mai neunzig Lampen ab",
                "der Bäcker am dritten Mai neunzig Lampen abholte",
            ),
        ),
        (
            "perfect",
            BAKER,
            "send back",
            THINGS,
            (
                "the baker has sent back ninety lamps on the third of May",
                "on the third of May the baker has sent back ninety lamps",
                "has the baker sent back ninety lamps on the third of May",
                "the baker has sent back ninety lamps on the third of May",
            ),
            (
                "der Bäcker hat am dritten Mai neunzig Lampen zurückgeschickt",
                "am dritten Mai hat der Bäcker neunzig Lampen zurückgeschickt",
                "hat der Bäcker am dritten Mai neunzig Lampen zurückgeschickt",
                "der Bäcker am dritten Mai neunzig Lampen zurückgeschickt hat",
            ),
        ),
        (
            "future",
            TRAIN,
            "leave",
            Phrase("", ""),
            (
                "the train will leave on the third of May",
                "on the third of May the train will leave",
                "will the train leave on the third of May",
                "the train will leave on the third of May",
            ),
            (
                "der Zug wird am dritten Mai abfahren",
                "am dritten Mai wird der Zug abfahren",
                "wird der Zug am dritten Mai abfahren",
                "der Zug am dritten Mai abfahren wird",
            ),
        ),
    ],
)
def test_clauses_by_hand(tense, subject, verb, things, english, german):
    clause = _clause(subject, _TENSES[tense](VERBS[verb]), things, TIME)
    assert tuple(phrase.english for phrase in clause) == english
    assert tuple(phrase.german for phrase in clause) == german


@pytest.fixture(scope="module")
def sentences():
    return {split: take(split, 3000) for split in ("train", "validation", "test")}


def test_sentences_are_of_many_lengths_and_well_formed(sentences):
    lengths = [len(english.split()) for english, _ in sentences["train"]]
    assert min(lengths) == 2 and max(lengths) == 25
    assert all(lengths.count(length) > 20 for length in (2, 3, 5, *range(7, 26)))
    for sentence in itertools.chain.from_iterable(sentences["train"]):
        # One capital, one mark at the end, commas before words, no field left open.
        assert re.fullmatch(r"[A-ZÄÖÜ][\w'-]*(,? [\w'-]+)*[.?]", sentence), sentence


def test_every_sentence_has_one_translation(sentences):
    translations = {}
    for english, german in itertools.chain.from_iterable(sentences.values()):
        assert translations.setdefault(english, german) == german


@pytest.mark.parametrize(
    "values",
    [
        r"(\w+) (?:bücher|karten|äpfel|briefe|stühle|fahrräder|lampen|flaschen|briefmarken|brötchen)",
        r"der (\w+ste) (?:besucher|gast|kunde)",
        r"(?:im jahr|seit) (\w+hundert\w*|zweitausend\w*)",
        r"the ([\w-]+) of (\w+)",
        r"um (\w+ uhr \w+)",
        r"at ([\w'-]+(?: [\w'-]+){1,4}) in the (morning|afternoon|evening)",
    ],
)
def test_values_of_one_split_are_in_no_other(values, sentences):
    found = {
        split: {value for pair in pairs for value in re.findall(values, " | ".join(pair).lower())}
        for split, pairs in sentences.items()
    }
    assert len(found["test"]) > 10 and len(found["train"]) > 30
    assert not found["train"] & found["test"]
    assert not found["train"] & found["validation"]
    assert not found["validation"] & found["test"]


def test_unseen_values_are_made_of_seen_words(sentences):
    words = {
        split: set(re.findall(r"[\w']+", " ".join(english for english, _ in pairs).lower()))
        for split, pairs in sentences.items()
    }
    assert words["test"] <= words["train"]
    assert words["validation"] <= words["train"]


def test_seeds_give_other_sentences():
    assert take("train", 20) == take("train", 20, seed=0)
    assert not set(take("train", 20)) & set(take("train", 20, seed=1))


def test_the_data_set(monkeypatch):
    monkeypatch.setattr(number_sentences, "_SIZES", {"train": 40, "validation": 7, "test": 5})
    data = translation.load("numbers")
    assert data.name == "numbers"
    assert list(zip(*data.train, strict=True)) == take("train", 40)
    assert list(zip(*data.validation, strict=True)) == take("validation", 7)
    assert list(zip(*data.test, strict=True)) == take("test", 5)
