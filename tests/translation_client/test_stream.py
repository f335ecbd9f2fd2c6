"""Every sentence has its result, in its place, whatever fails and however long it takes."""

import itertools
import threading
import time

import hypothesis
import keras
import pytest
from hypothesis import strategies as st

from vq_keras.errors import InputError
from vq_keras.translation_client import Failure, Translation, TranslationStream
from vq_keras.translation_client.batches import Sentence, take_batch
from vq_keras.translation_client.failures import Refused, Unavailable
from vq_keras.translation_client.parting import translate_apart

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="no backend is used: one run of these tests is enough"
)


class Capitals:
    """Translates into capitals; refuses batches with "!" in them, is away for those with "?", takes its time for "z".

    It remembers its batches, and how many it had at a time.
    """

    def __init__(self):
        self.batches, self.running, self.most = [], 0, 0
        self._lock = threading.Lock()

    def translate(self, sentences):
        with self._lock:
            self.batches.append(list(sentences))
            self.running += 1
            self.most = max(self.most, self.running)
        text = "".join(sentences)
        time.sleep(0.001 * text.count("z"))
        with self._lock:
            self.running -= 1
        if "?" in text:
            raise Unavailable("away")
        if "!" in text:
            raise Refused("no")
        return [expected(sentence) for sentence in sentences]


def expected(sentence):
    return Failure("no", refused=True) if "!" in sentence else Translation(sentence.upper(), len(sentence), False)


@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(st.lists(st.text("abz!", max_size=12), max_size=80), st.integers(1, 9), st.integers(1, 4))
def test_each_sentence_has_its_own_result_in_its_place(sentences, batch_size, in_flight):
    translator = Capitals()
    stream = TranslationStream(translator, sentences, batch_size, in_flight)
    assert list(stream) == [expected(sentence) for sentence in sentences]
    assert stream.stopped is None
    assert all(1 <= len(batch) <= batch_size for batch in translator.batches)
    assert translator.most <= in_flight


@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(st.lists(st.text("az!?", max_size=6), max_size=80), st.integers(1, 5), st.integers(1, 3))
def test_where_answers_stay_out_results_keep_their_places(sentences, batch_size, in_flight):
    stream = TranslationStream(Capitals(), sentences, batch_size, in_flight)
    results = list(stream)
    away = Failure("away", refused=False)
    assert all(result in (expected(each), away) for each, result in zip(sentences, results, strict=False))
    assert all(result == away for each, result in zip(sentences, results, strict=False) if "?" in each)
    assert stream.stopped in (None, "away")
    assert len(results) == len(sentences) or stream.stopped == "away"


@hypothesis.given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(1, 8))
def test_a_batch_is_the_oldest_sentence_and_those_nearest_to_it_in_length(lengths, size):
    sentences = [Sentence(i, "a" * length) for i, length in enumerate(lengths)]
    waiting = list(sentences)
    batch = take_batch(waiting, size)
    assert batch[0] == sentences[0] and len(batch) == min(size, len(sentences))
    assert sorted(batch + waiting) == sentences and waiting == sorted(waiting)
    furthest = max(abs(len(each.text) - lengths[0]) for each in batch)
    assert all(abs(len(each.text) - lengths[0]) >= furthest for each in waiting)


def test_a_sentence_that_is_refused_costs_two_requests_a_halving():
    translator, sentences = Capitals(), [*"abcdefghij", "!", *"klmno"]
    assert translate_apart(translator, sentences) == [expected(sentence) for sentence in sentences]
    assert len(translator.batches) == 1 + 2 * 4


def test_nobody_waits_for_a_batch_to_fill():
    answered = threading.Semaphore()

    def talk():
        for word in ("one", "two", "three"):
            assert answered.acquire(timeout=5)
            yield word

    found = []
    for result in TranslationStream(Capitals(), talk(), batch_size=32, in_flight=2):
        found.append(result.text)
        answered.release()
    assert found == ["ONE", "TWO", "THREE"]


def test_sentences_are_read_no_further_ahead_than_sixteen_batches_and_those_in_flight():
    read = itertools.count()
    sentences = (f"{next(read)}" for _ in itertools.count())
    results = iter(TranslationStream(Capitals(), sentences, batch_size=2, in_flight=3))
    assert [next(results).text for _ in range(5)] == ["0", "1", "2", "3", "4"]
    time.sleep(0.2)
    before = threading.active_count()
    assert next(read) <= 5 + 2 * (16 + 3) + 1
    results.close()
    end = time.monotonic() + 5
    while threading.active_count() > before - 4 and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() <= before - 4  # Its reader and its three workers have gone.


def test_after_a_flight_without_answers_no_more_is_tried():
    translator, translated = Capitals(), threading.Semaphore(0)

    def words():
        yield from "abcde"
        for _ in "abcde":
            translated.acquire(timeout=5)
        yield from itertools.repeat("?")

    stream, results = TranslationStream(translator, words(), batch_size=1, in_flight=3), []
    for result in stream:
        results.append(result)
        translated.release()
    assert results[:5] == [expected(word) for word in "abcde"]
    assert set(results[5:]) == {Failure("away", refused=False)} and stream.stopped == "away"
    assert 5 + 3 <= len(translator.batches) <= 5 + 3 + 2  # At most two were sent while the third failed.


def test_stopping_gives_what_is_there_and_names_the_rest():
    gate, done = threading.Event(), threading.Event()

    class Stuck:
        def translate(self, sentences):
            if sentences == ["stuck"]:
                gate.wait(10)
            if sentences == ["last"]:
                done.set()
            return [Translation(sentence, 0.0, False) for sentence in sentences]

    def words():
        yield from ("first", "stuck", "last")
        done.wait(5)
        stream.stop("that is enough")
        gate.wait(10)

    stream = TranslationStream(Stuck(), words(), batch_size=1, in_flight=2)
    first, stuck, last = stream
    assert (first.text, stuck) == ("first", Failure("that is enough", refused=False))
    # It has come back, or it was on its way.
    assert last in (Translation("last", 0.0, False), stuck)
    gate.set()


def test_text_that_is_no_unicode_fails_alone_and_is_not_sent():
    translator = Capitals()
    results = list(TranslationStream(translator, ["a", "b\udcff", "c"], batch_size=1))
    assert results == [expected("a"), Failure("it is not UTF-8", refused=True), expected("c")]
    assert translator.batches == [["a"], ["c"]]


def test_other_errors_are_raised():
    class Broken:
        def translate(self, sentences):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(TranslationStream(Broken(), ["a"]))
    with pytest.raises(ZeroDivisionError):
        list(TranslationStream(Capitals(), (1 / 0 for _ in "a")))


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"in_flight": 0}])
def test_numbers_below_one_are_told(settings):
    with pytest.raises(InputError, match="is 0; give at least 1"):
        TranslationStream(Capitals(), [], **settings)
