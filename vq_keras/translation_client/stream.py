"""Sentences in, translations out, in the same order, while others are read, waited for and translated."""

import queue
import threading
from collections.abc import Iterable, Iterator

from vq_keras.errors import InputError
from vq_keras.translation import Translation
from vq_keras.translation_client.batches import Sentence, take_batch
from vq_keras.translation_client.failures import Failure
from vq_keras.translation_client.parting import translate_apart

# Batches that may wait, for sentences of about one length to meet.
_BATCHES_AHEAD = 16


class TranslationStream:
    """Iterates, once, over the `Translation` or `Failure` of each sentence, as soon as all before it are there.

    Sentences are read ahead, as many as 16 batches. Whenever a request can be sent, the oldest sentence goes, with
    those nearest to it in length, so nobody waits for a batch to fill. After as many batches in a row as can be in
    flight have had no answer, the others are not tried any more.

    Args:
        translator: has `translate(sentences) -> list[Translation]`, which raises what `failures` has: a
            `ServedModel`, a `SavedModelTranslator` or a `vq_keras.translator.Translator`.
        sentences: texts. They are read in a thread, which may wait for them.
        batch_size: sentences of a request, at most.
        in_flight: requests at a time; 1 for models in this process.

    Raises:
        InputError: `batch_size` or `in_flight` is below 1.

    Example:
        >>> served = GrpcModel("localhost:8500", "captions")
        >>> for result in TranslationStream(served, ["two books", "the house"], in_flight=4):
        ...     print(result.reason if isinstance(result, Failure) else result.text)
        zwei Bücher
        das Haus
    """

    def __init__(self, translator, sentences: Iterable[str], batch_size: int = 32, in_flight: int = 1):
        for name, value in (("batch_size", batch_size), ("in_flight", in_flight)):
            if value < 1:
                raise InputError(f"{name} is {value}; give at least 1.")
        self.stopped: str | None = None
        """Why the rest was not tried; None where all was."""
        self._translator, self._sentences = translator, sentences
        self._batch_size, self._in_flight = batch_size, in_flight
        self._events = queue.SimpleQueue()  # Each is a function of what it carries, for the iterating thread to call.
        self._batches = queue.SimpleQueue()
        self._room = threading.Semaphore(batch_size * (_BATCHES_AHEAD + in_flight))
        self._closed = False
        self._waiting: list[Sentence] = []
        self._results: dict[int, Translation | Failure] = {}
        self._read = self._running = self._unanswered = 0
        self._all_read = False

    def stop(self, reason: str) -> None:
        """Ends the iteration: results that are there still come, and failures for the others that were read.

        May be called from a signal's handler.
        """
        self._events.put((self._on_stop, reason))

    def __iter__(self) -> Iterator[Translation | Failure]:
        targets = [self._read_ahead, *[self._translate] * self._in_flight]
        # Daemons: a request, or standard input, may take longer than its user wants to wait for the end.
        threads = [threading.Thread(target=target, daemon=True) for target in targets]
        for thread in threads:
            thread.start()
        index = 0
        try:
            while not (self._all_read and index == self._read) and self.stopped is None:
                handle, value = self._events.get()
                handle(value)
                if not self._events.empty():
                    continue  # Sentences that are there already may go together.
                self._send()
                while index in self._results:
                    yield self._results.pop(index)
                    index += 1
                    self._room.release()
            for rest in range(index, self._read):
                yield self._results.pop(rest, Failure(self.stopped, refused=False))
        finally:
            self._closed = True
            self._room.release()
            for _ in range(self._in_flight):
                self._batches.put(None)
            if self._all_read and not self._running:
                for thread in threads:
                    thread.join()

    def _send(self):
        while self._waiting and self._running < self._in_flight and self.stopped is None:
            self._batches.put(take_batch(self._waiting, self._batch_size))
            self._running += 1

    def _on_sentence(self, text):
        try:
            text.encode()
            self._waiting.append(Sentence(self._read, text))
        except UnicodeEncodeError:
            self._results[self._read] = Failure("it is not UTF-8", refused=True)
        self._read += 1

    def _on_end(self, _):
        self._all_read = True

    def _on_results(self, batch_and_results):
        batch, results = batch_and_results
        self._running -= 1
        for sentence, result in zip(batch, results, strict=True):
            self._results[sentence.index] = result
        no_answer = all(isinstance(result, Failure) and not result.refused for result in results)
        self._unanswered = self._unanswered + 1 if no_answer else 0
        if self._unanswered == self._in_flight:
            self._on_stop(results[-1].reason)

    def _on_stop(self, reason):
        self.stopped = reason

    def _on_error(self, error):
        raise error

    def _read_ahead(self):
        try:
            for text in self._sentences:
                self._room.acquire()
                if self._closed:
                    return
                self._events.put((self._on_sentence, text))
            self._events.put((self._on_end, None))
        except Exception as error:  # It is raised where the results are waited for.
            self._events.put((self._on_error, error))

    def _translate(self):
        while batch := self._batches.get():
            try:
                results = translate_apart(self._translator, [sentence.text for sentence in batch])
                self._events.put((self._on_results, (batch, results)))
            except Exception as error:  # As above.
                self._events.put((self._on_error, error))
