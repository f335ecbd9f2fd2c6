import datetime
import random
import sys

import pytest

from vq_keras.data import number_phrases as phrases
from vq_keras.errors import InputError

pytest.importorskip("num2words", reason="number words come from num2words")

SPLITS = ("train", "validation", "test")


@pytest.mark.parametrize(
    "phrase, english, german",
    [
        (phrases.number(21), "twenty-one", "einundzwanzig"),
        (phrases.number(30), "thirty", "dreißig"),
        (phrases.number(116), "one hundred and sixteen", "einhundertsechzehn"),
        (phrases.number(777), "seven hundred and seventy-seven", "siebenhundertsiebenundsiebzig"),
        (phrases.number(1234), "one thousand two hundred and thirty-four", "eintausendzweihundertvierunddreißig"),
        (phrases.number(9070), "nine thousand and seventy", "neuntausendsiebzig"),
        (phrases.ordinal(23), "twenty-third", "dreiundzwanzigste"),
        (phrases.ordinal(100), "one hundredth", "hundertste"),
        (phrases.ordinal(312), "three hundred and twelfth", "dreihundertzwölfte"),
        (phrases.year(1984), "nineteen eighty-four", "neunzehnhundertvierundachtzig"),
        (phrases.year(1700), "seventeen hundred", "siebzehnhundert"),
        (phrases.year(1805), "eighteen oh-five", "achtzehnhundertfünf"),
        (phrases.year(2000), "two thousand", "zweitausend"),
        (phrases.year(2007), "two thousand and seven", "zweitausendsieben"),
        (phrases.year(2031), "twenty thirty-one", "zweitausendeinunddreißig"),
        (phrases.day(5, 3), "the third of May", "dritten Mai"),
        (phrases.day(1, 1), "the first of January", "ersten Januar"),
        (phrases.day(3, 7), "the seventh of March", "siebten März"),
        (phrases.day(12, 31), "the thirty-first of December", "einunddreißigsten Dezember"),
        (phrases.day(2, 20), "the twentieth of February", "zwanzigsten Februar"),
        (
            phrases.date(1984, 5, 3),
            "Thursday the third of May nineteen eighty-four",
            "Donnerstag, dem dritten Mai neunzehnhundertvierundachtzig,",
        ),
        (phrases.time(16, 0), "four o'clock in the afternoon", "nachmittags um vier Uhr"),
        (phrases.time(13, 0), "one o'clock in the afternoon", "nachmittags um ein Uhr"),
        (phrases.time(13, 10), "ten past one in the afternoon", "nachmittags um zehn nach eins"),
        (phrases.time(7, 15), "a quarter past seven in the morning", "morgens um Viertel nach sieben"),
        (phrases.time(19, 25), "twenty-five past seven in the evening", "abends um fünf vor halb acht"),
        (phrases.time(11, 30), "half past eleven in the morning", "morgens um halb zwölf"),
        (phrases.time(21, 35), "twenty-five to ten in the evening", "abends um fünf nach halb zehn"),
        (phrases.time(9, 45), "a quarter to ten in the morning", "morgens um Viertel vor zehn"),
        (phrases.time(16, 23), "sixteen twenty-three", "um sechzehn Uhr dreiundzwanzig"),
        (phrases.time(1, 2), "one oh-two", "um ein Uhr zwei"),
        (phrases.time(21, 1), "twenty-one oh-one", "um einundzwanzig Uhr eins"),
    ],
)
def test_phrases_by_hand(phrase, english, german):
    assert phrase == (english, german)


def test_the_weekday_is_the_true_one():
    names = ("Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag", "Sonntag")
    for day in range(1, 8):
        german = phrases.date(2024, 1, day).german  # The first of January 2024 was a Monday.
        assert german.startswith(names[day - 1])


def test_splits_have_their_shares_and_their_own_values():
    kinds = {
        "number": range(21, 10_000),
        "year": range(1600, 2100),
        "day": [
            (date.month, date.day) for date in (datetime.date(2000, 1, 1) + datetime.timedelta(d) for d in range(366))
        ],
        "time": [(hour, minute) for hour in range(1, 24) for minute in range(60)],
    }
    for kind, values in kinds.items():
        splits = [phrases.split_of(kind, value) for value in values]
        for split in ("validation", "test"):
            share = splits.count(split) / len(splits)
            # Five standard deviations of that many draws with probability a tenth.
            assert abs(share - 0.1) < 5 * (0.09 / len(splits)) ** 0.5
    # Written down, because with other splits the scores of models trained before would mean something else.
    apart = {n: phrases.split_of("number", n) for n in range(40, 60) if phrases.split_of("number", n) != "train"}
    assert apart == {40: "validation", 42: "validation", 44: "test", 51: "test"}


@pytest.mark.parametrize("kind", ["number", "ordinal", "year", "day", "date", "time"])
def test_no_two_splits_draw_one_value(kind):
    drawn = {}
    for split in SPLITS:
        rng = random.Random(0)
        drawn[split] = {phrases.draw(kind, split, rng) for _ in range(1500)}
    assert not drawn["train"] & drawn["test"]
    assert not drawn["train"] & drawn["validation"]
    assert not drawn["validation"] & drawn["test"]


def test_numbers_of_every_length_are_drawn():
    rng = random.Random(0)
    words = [len(phrases.draw("number", "train", rng).english.split()) for _ in range(1000)]
    assert words.count(1) > 100  # "twenty-two" to "ninety-nine"
    assert words.count(7) + words.count(6) > 100  # "four thousand two hundred and six"


def test_without_num2words(monkeypatch):
    monkeypatch.setitem(sys.modules, "num2words", None)
    with pytest.raises(InputError, match=r"need num2words .*pip install 'vq_keras\[translation\]'"):
        phrases.number(123_456)
