"""Servers on bad days: what is tried again, what is not, how long it takes, and what is said of it."""

import math
import threading
import time

import keras
import pytest
from scripted_servers import grpc_server, http_server, mirror, rest_server

from vq_keras.errors import InputError
from vq_keras.translation_client import Failure, GrpcModel, RestModel, TranslationStream, open_server, retrying
from vq_keras.translation_client.failures import Refused, Unavailable, Unusable

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="no backend is used: one run of these tests is enough"
)
for module in ("grpc", "requests", "tenacity", "tensorflow_serving.apis"):
    pytest.importorskip(module, reason="the client's protocols")


@pytest.fixture(autouse=True)
def shorter_waits(monkeypatch):
    monkeypatch.setattr(retrying, "_FIRST", 0.01)


@pytest.fixture(params=["gRPC", "REST"])
def protocol(request):
    return request.param


@pytest.fixture
def serve(protocol):
    """Starts a server with a script, as a context."""
    return grpc_server if protocol == "gRPC" else rest_server


@pytest.fixture
def connect(protocol):
    kind = GrpcModel if protocol == "gRPC" else RestModel
    return lambda address, **settings: kind(address, "captions", **settings)


class Failing:
    """A script that fails at first, with a code, then translates; it counts the requests."""

    def __init__(self, code, times):
        self.code, self.times, self.requests = code, times, 0

    def __call__(self, sentences):
        self.requests += 1
        return self.code if self.requests <= self.times else mirror(sentences)


def test_all_servers_of_a_name_get_requests_and_those_that_are_left_go_on():
    first, second = Failing("UNAVAILABLE", times=0), Failing("UNAVAILABLE", times=0)
    with grpc_server(first) as one:
        with grpc_server(second) as two:
            ports = ",".join(f"127.0.0.1:{address.split(':')[1]}" for address in (one, two))
            model = GrpcModel(f"ipv4:{ports}", "captions")
            # Until both are connected, the one that is gets all.
            while not (first.requests and second.requests):
                model.translate(["ja"])
            before = first.requests, second.requests
            for _ in range(20):
                model.translate(["ja"])
            assert (first.requests - before[0], second.requests - before[1]) == (10, 10)
        assert [model.translate(["nein"]) for _ in range(4)] == [[("NEIN", 4.0, False)]] * 4


@pytest.mark.parametrize("code", ["RESOURCE_EXHAUSTED", "UNAVAILABLE"])
def test_an_overloaded_server_is_asked_again(serve, connect, code):
    script = Failing(code, times=3)
    with serve(script) as address:
        assert connect(address).translate(["ja", "größer"]) == [("JA", 2.0, False), ("GRÖSSER", 6.0, False)]
    assert script.requests == 4


def test_it_is_asked_so_often_and_no_more(serve, connect):
    script = Failing("RESOURCE_EXHAUSTED", times=100)
    with serve(script) as address:
        with pytest.raises(Unavailable, match=r"(RESOURCE_EXHAUSTED|429): as the script has it"):
            connect(address, attempts=3).translate(["ja"])
        assert script.requests == 3
        stream = TranslationStream(connect(address, attempts=1), ["a", "b", "c", "d"], batch_size=1, in_flight=2)
        results = list(stream)
    assert stream.stopped.endswith("as the script has it") and set(results) == {Failure(stream.stopped, refused=False)}
    assert script.requests <= 3 + 2 + 1  # Another may have been sent while the second failed.


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("INVALID_ARGUMENT", Refused),
        ("NOT_FOUND", Unusable),
        ("UNIMPLEMENTED", Unusable),
        ("FAILED_PRECONDITION", {"gRPC": Unusable, "REST": Refused}),  # REST has 400 for it.
    ],
)
def test_what_will_not_pass_is_not_asked_again(serve, connect, protocol, code, kind):
    script = Failing(code, times=100)
    with serve(script) as address, pytest.raises(kind[protocol] if isinstance(kind, dict) else kind):
        connect(address).translate(["ja"])
    assert script.requests == 1


def test_a_deadline_holds_for_all_attempts_together(serve, connect):
    gate = threading.Event()
    with serve(lambda sentences: gate.wait(10) and mirror(sentences)) as address:
        start = time.monotonic()
        with pytest.raises(Unavailable, match=r"DEADLINE_EXCEEDED|timed out"):
            connect(address, deadline=0.3).translate(["ja"])
        assert 0.3 <= time.monotonic() - start < 2.0
        gate.set()


def test_a_server_that_is_not_there_is_told_with_what_to_do(connect, protocol):
    address = "localhost:1" if protocol == "gRPC" else "http://localhost:1"
    with pytest.raises(InputError) as raised:
        open_server(address, "captions", attempts=2)
    message = str(raised.value)
    assert message.startswith(f"No translations from {address} (") and "Connection refused" in message
    assert message.endswith("): is the server up, and is this its port?")


def test_a_server_that_goes_in_the_middle_leaves_what_was_translated(serve, connect):
    half = threading.Event()

    def words():
        yield from ("a", "b")
        half.wait(10)
        yield from ("c", "d")

    found = []
    with serve(mirror) as address:
        stream = TranslationStream(connect(address, attempts=2), words(), batch_size=1)
        results = iter(stream)
        found += [next(results), next(results)]
    half.set()
    found += results
    assert [result.text for result in found[:2]] == ["A", "B"]
    assert len(found) > 2 and set(found[2:]) == {Failure(stream.stopped, refused=False)}


def test_a_proxy_without_a_server_behind_it_is_told():
    refused = pytest.raises(InputError, match="503 Service Unavailable, not as TF Serving does")
    with http_server(lambda body: (503, "text/plain", b"starting")) as address, refused:
        open_server(address, "captions", attempts=2)


GOOD = mirror(["ja", "no"])


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ({"translation": ["A", "B"], "score": [0.0, 0.0]}, "the reply has no output truncated"),
        (GOOD | {"translation": ["A"]}, "the reply has translation of 1 sentences, not of 2"),
        (GOOD | {"score": ["A", "B"]}, "the reply's score is of another type or shape than a translator's"),
        (GOOD | {"translation": [["A"], ["B"]]}, "the reply('s| has no output) translation"),
        (GOOD | {"truncated": [0, 1]}, "the reply('s| has no output) truncated"),
    ],
)
def test_a_reply_that_is_no_translation_is_refused(serve, connect, reply, said):
    with serve(lambda sentences: reply) as address, pytest.raises(Refused, match=said):
        connect(address).translate(["ja", "no"])


def test_a_reply_that_is_no_translation_of_one_sentence_fails_that_one(serve, connect):
    def script(sentences):
        return mirror(sentences[1:]) if "odd" in sentences else mirror(sentences)

    with serve(script) as address:
        results = list(TranslationStream(connect(address), ["a", "b", "odd", "c", "d"], batch_size=5))
    assert results[2] == Failure("the reply has translation of 0 sentences, not of 1", refused=True)
    assert [result.text for result in results[:2] + results[3:]] == ["A", "B", "C", "D"]


def test_servers_of_other_things_are_told():
    def message(address):
        with pytest.raises(InputError) as raised:
            open_server(address, "captions", attempts=1)
        return str(raised.value)

    with grpc_server(None) as address:
        assert "UNIMPLEMENTED" in message(address)
        assert "is this its port?" in message(f"http://{address}")
    with rest_server(None) as address:
        assert "(it answers 200 OK, not as TF Serving does)" in message(address)
        assert "is this its port?" in message(address.removeprefix("http://"))


def test_no_redirection_is_followed():
    asked = []
    refused = pytest.raises(Unusable, match="it answers 307 Temporary Redirect, not as TF Serving does")
    with (
        http_server(lambda body: asked.append(body) or (200, "application/json", b"{}")) as elsewhere,
        http_server(lambda body: (307, "text/plain", b""), [("Location", elsewhere)]) as address,
        refused,
    ):
        RestModel(address, "captions").translate(["ja"])
    assert not asked


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"version": 1, "label": "stable"}, "version and label both say which version to ask"),
        ({"deadline": 0.0}, "deadline is 0.0; give more than 0 and at most 86400.0 seconds, a day"),
        ({"deadline": math.inf}, "deadline is inf; give more than 0"),
        ({"deadline": math.nan}, "deadline is nan; give more than 0"),
        ({"attempts": 0}, "attempts is 0; give more than 0"),
    ],
)
def test_settings_that_cannot_be_are_told(connect, settings, said):
    with pytest.raises(InputError, match=said):
        connect("localhost:1", **settings)


def test_a_deadline_that_is_over_at_once_has_no_translation(connect):
    with pytest.raises(Unavailable):
        connect("localhost:1", deadline=1e-9).translate(["ja"])


def test_a_host_that_nobody_can_have_is_told():
    with pytest.raises(InputError, match=r"No translations from http://a\.\.b:1"):
        open_server("http://a..b:1", "captions", deadline=0.1)


@pytest.mark.parametrize("address", ["localhost", "ftp://localhost:1", "http://", "http://localhost:1?x", "a b:1"])
def test_addresses_that_are_none_are_told(address):
    with pytest.raises(InputError, match="give HOST:PORT for gRPC, or http://HOST:PORT for REST"):
        open_server(address, "captions")
