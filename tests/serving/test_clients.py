"""Clients of a served translator, ours and others, get what Python gets: by gRPC, by REST, by the command.

The server is the stand-in beside this file. VQ_KERAS_MODEL_SERVER adds the real one: a command that takes its flags,
as `tensorflow_model_server` or `docker run --rm --network host -v /tmp:/tmp tensorflow/serving:2.20.0`.
"""

import os
import shlex
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import keras
import numpy as np
import pytest

from vq_keras import saved_model, translate
from vq_keras.data.translation_data import Pairs
from vq_keras.data.vocabulary import EOS, FILE, Vocabulary
from vq_keras.errors import InputError
from vq_keras.models.transformer import Transformer
from vq_keras.text_signatures import text_signatures
from vq_keras.training import runs
from vq_keras.translation_client import Failure, GrpcModel, RestModel, TranslationStream, open_model, open_server
from vq_keras.translation_client.failures import Refused
from vq_keras.translation_signatures import searches

pytestmark = [
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow writes and serves SavedModels"),
    pytest.mark.slow,
    pytest.mark.xdist_group("serving"),
]
pytest.importorskip("tensorflow_text", reason="the tokenizer of exported graphs")
grpc = pytest.importorskip("grpc", reason="a server's protocol")
apis = pytest.importorskip("tensorflow_serving.apis", reason="a server's messages")

DOUBLE = [sys.executable, str(Path(__file__).with_name("tf_serving_double.py"))]
REAL = os.environ.get("VQ_KERAS_MODEL_SERVER")
MAX_LENGTH = 12
SENTENCES = ["two books", "", "the old house of the two old books", "Bücher, größer: ﬁ 日本", " das  Haus", "\0"]
# What no one should send; as large as gRPC's own limit and larger. tests/export has more, without a server.
HOSTILE = [b"two books", b"", b" " * 5_000_000, b"\xff" * 100_000, b"two\xc3", b"\xed\xa0\x80", bytes(range(32))]
HOSTILE.append(b"old " * 5000)
SECONDS_TO_START = 120
# Other graphs of the same float32 sums, and what REST writes with seven digits.
CLOSE = 1e-5

CONFIG = """
model_config_list {{
  config {{ name: "captions" base_path: "{folder}/captions" model_platform: "tensorflow" }}
  config {{
    name: "mirror" base_path: "{folder}/mirror" model_platform: "tensorflow"
    model_version_policy {{ all {{}} }}
    version_labels {{ key: "stable" value: 1 }}
  }}
}}
"""


def write_run(folder):
    """A Transformer with random weights and preferences, so that sentences have translations of their own."""
    pairs = Pairs(["two books", "the old house"] * 3, ["zwei Bücher", "das alte Haus"] * 3)
    vocabulary = Vocabulary.train(pairs, size=290)
    keras.utils.set_random_seed(0)
    model = Transformer(vocabulary.size, 1, 1, hidden_dim=16, num_heads=2, feed_forward_dim=24)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        scale = 2.0 * weight.shape[0] ** -0.5 if len(weight.shape) == 2 else 0.2
        weight.assign(rng.normal(weight.name == "gamma", scale, weight.shape))
    model.decoder.norm.gamma.assign(rng.normal(0.0, 1.0, 16))
    table = rng.normal(0.0, 1.0, model.embedding.table.shape)
    table[EOS] *= 1.5  # Ends sometimes.
    model.embedding.table.assign(table)
    runs.claim(folder, {"vocabulary": vocabulary.fingerprint, "max_length": MAX_LENGTH})
    vocabulary.save(folder / FILE)
    runs.save_model(model, folder)


def write_mirror(folder, number):
    """A version of a model whose translations are its number and the sentence, and which refuses one sentence."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="source")])
    def mirror(source):
        lengths = tf.strings.length(source)
        with tf.control_dependencies([tf.debugging.assert_none_equal(source, "refuse me")]):
            translation = tf.strings.join([f"{number}: ", source])
        return {"translation": translation, "score": tf.cast(lengths, "float32"), "truncated": lengths > 20}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="source")])
    def bare(source):
        return {"translation": tf.identity(source)}

    signatures = {"translate": mirror, "serving_default": mirror, "bare": bare}
    tf.saved_model.save(tf.Module(), str(folder / str(number)), signatures)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    write_run(folder / "run")
    model, vocabulary, config = runs.load_translator(folder / "run")
    greedy = {"translate": searches(model)["translate"]}  # The others take time, and are tested where they are made.
    saved_model.write(folder / "captions", *text_signatures(greedy, vocabulary, config["max_length"]))
    for number in (1, 2):
        write_mirror(folder / "mirror", number)
    (folder / "models.config").write_text(CONFIG.format(folder=folder))
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    """What the run's own translator makes of the sentences, but for spaces, which TensorFlow Text leaves out."""
    return [each._replace(text=each.text.lstrip(" ")) for each in open_model(str(folder / "run")).translate(SENTENCES)]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(
    scope="module",
    params=[
        "double",
        pytest.param("real", marks=pytest.mark.skipif(not REAL, reason="VQ_KERAS_MODEL_SERVER names no server")),
    ],
)
def server(request, folder):
    """The addresses of a server with both models."""
    ports = free_port(), free_port()
    flags = [f"--port={ports[0]}", f"--rest_api_port={ports[1]}", f"--model_config_file={folder / 'models.config'}"]
    # Labels are given before the versions have been loaded.
    flags.append("--allow_version_labels_for_unavailable_models=true")
    command = DOUBLE if request.param == "double" else shlex.split(REAL)
    process = subprocess.Popen([*command, *flags])
    try:
        found = types.SimpleNamespace(grpc=f"localhost:{ports[0]}", rest=f"http://localhost:{ports[1]}")
        end = time.monotonic() + SECONDS_TO_START
        for name in ("captions", "mirror"):
            while not _answers(found.rest, name):
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.2)
        yield found
    finally:
        process.terminate()
        process.wait(30)


def _answers(address, name):
    try:
        open_server(address, name, attempts=1)
    except InputError:
        return False
    return True


@pytest.fixture(params=[GrpcModel, RestModel])
def connect(request, server):
    address = server.grpc if request.param is GrpcModel else server.rest
    return lambda name, **settings: request.param(address, name, **settings)


def agree(found, expected):
    assert [(each.text, each.truncated) for each in found] == [(each.text, each.truncated) for each in expected]
    np.testing.assert_allclose([each.score for each in found], [each.score for each in expected], rtol=CLOSE)


def test_a_served_translator_gives_what_it_gives_in_this_process(folder, expected, connect):
    assert len({each.text for each in expected}) > 3 and [each.truncated for each in expected].count(True) == 2
    agree(connect("captions").translate(SENTENCES), expected)


def test_a_saved_model_gives_the_same_in_this_process(folder, expected):
    agree(open_model(str(folder / "captions")).translate(SENTENCES), expected)


def test_a_signature_that_a_model_has_not_is_told_with_those_that_it_has(folder):
    with pytest.raises(InputError, match="run has no signature encode: give one of translate, translate_beam"):
        open_model(str(folder / "run"), "encode")
    with pytest.raises(InputError, match="1 has no signature encode from text to text: give one of"):
        open_model(str(folder / "mirror"), "encode", version=1)


def test_a_version_is_chosen_by_number_or_label_or_is_the_latest(folder, connect):
    def translation(**settings):
        return connect("mirror", **settings).translate(["ja"])

    assert translation() == translation(version=2) == [("2: ja", 2.0, False)]
    assert translation(version=1) == translation(label="stable") == [("1: ja", 2.0, False)]
    assert translation(signature="serving_default") == [("2: ja", 2.0, False)]
    assert open_model(str(folder / "mirror"), version=1).translate(["ja"]) == [("1: ja", 2.0, False)]


@pytest.mark.parametrize(
    ("name", "settings", "codes"),
    [
        ("nothing", {}, ("NOT_FOUND", "404")),
        ("mirror", {"version": 7}, ("NOT_FOUND", "404")),
        ("mirror", {"label": "canary"}, ("INVALID_ARGUMENT", "400")),
        ("mirror", {"signature": "encode"}, ("FAILED_PRECONDITION", "400")),
        ("mirror", {"signature": "bare"}, ("no output score", "no output translation")),
    ],
)
def test_what_the_server_has_not_is_told_before_anything_is_sent(connect, name, settings, codes):
    model = connect(name, **settings)
    with pytest.raises(InputError, match=f"^The server at {model.address} has no model {name}") as raised:
        model.check()
    assert codes[isinstance(model, RestModel)] in str(raised.value)


def test_a_sentence_that_the_server_refuses_fails_alone(connect):
    sentences = [f"sentence {i}" for i in range(10)]
    sentences[6] = "refuse me"
    results = list(TranslationStream(connect("mirror"), sentences, batch_size=4, in_flight=2))
    assert isinstance(results[6], Failure) and results[6].refused
    assert [result.text for result in results[:6] + results[7:]] == [
        f"2: {each}" for each in sentences if each != "refuse me"
    ]
    with pytest.raises(Refused):
        connect("mirror").translate(["ja", "refuse me"])


def test_the_command_translates_in_order_and_names_lines(server, tmp_path, monkeypatch, capfdbinary):
    lines = [f"{'a' * (i % 23)} {i}" for i in range(100)]
    lines[50] = "refuse me"
    (tmp_path / "lines").write_text("".join(f"{line}\n" for line in lines))
    expected = b"".join(b"\n" if line == "refuse me" else f"2: {line.strip()}\n".encode() for line in lines)
    cuts = ["19 to 23", "42 to 46", "65 to 69", "88 to 92"]
    remarks = [f"lines {cut}: longer than the model takes, and translated as far as that" for cut in cuts]
    remarks.insert(2, "line 51: not translated: ")
    for address in (server.grpc, server.rest):
        with open(tmp_path / "lines") as file:
            monkeypatch.setattr("sys.stdin", file)
            assert translate.main(["--server", address, "--name", "mirror", "--batch-size", "7"]) == 1
        out, err = capfdbinary.readouterr()
        assert out == expected
        for line, remark in zip(err.decode().splitlines(), remarks, strict=True):
            assert line.startswith(remark)


def test_an_independent_client_gets_the_same(server, expected):
    ovmsclient = pytest.importorskip("ovmsclient", reason="a client by others")
    for make, address in ((ovmsclient.make_grpc_client, server.grpc), (ovmsclient.make_http_client, server.rest)):
        client = make(address.removeprefix("http://"))
        assert client.get_model_status("mirror", 2)[2]["state"] == "AVAILABLE"
        outputs = client.predict({"source": SENTENCES[:-1]}, "captions", 1)  # It ends strings at NUL.
        texts = [text.decode() if isinstance(text, bytes) else text for text in outputs["translation"]]
        assert texts == [each.text for each in expected[:-1]]
        assert outputs["truncated"].tolist() == [each.truncated for each in expected[:-1]]
        np.testing.assert_allclose(outputs["score"], [each.score for each in expected[:-1]], rtol=CLOSE)


def test_the_official_stubs_get_the_same(server, expected):
    import tensorflow as tf
    from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

    with grpc.insecure_channel(server.grpc) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "captions"
        request.inputs["source"].CopyFrom(tf.make_tensor_proto(SENTENCES))
        outputs = {name: tf.make_ndarray(value) for name, value in stub.Predict(request, 30).outputs.items()}
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = "captions"
        metadata = stub.GetModelMetadata(request, 30)
    assert [text.decode() for text in outputs["translation"]] == [each.text for each in expected]
    np.testing.assert_allclose(outputs["score"], [each.score for each in expected], rtol=CLOSE)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    metadata.metadata["signature_def"].Unpack(signatures)
    assert {"translate", "serving_default"} <= signatures.signature_def.keys()
    assert signatures.signature_def["translate"].outputs.keys() == {"translation", "score", "truncated"}


def test_hostile_bytes_among_others_get_what_they_get_alone_in_this_process(server, folder):
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    translator = tf.saved_model.load(str(folder / "captions" / "1")).signatures["translate"]
    alone = [translator(source=tf.constant([each])) for each in HOSTILE]
    with grpc.insecure_channel(server.grpc, options=[("grpc.max_send_message_length", -1)]) as channel:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "captions"
        request.inputs["source"].CopyFrom(tf.make_tensor_proto(HOSTILE, shape=[len(HOSTILE)]))
        outputs = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, 60).outputs
        request.inputs["source"].CopyFrom(tf.make_tensor_proto(HOSTILE[0]))  # No vector.
        with pytest.raises(grpc.RpcError) as refused:
            prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, 60)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    for name in ("translation", "truncated"):
        assert tf.make_ndarray(outputs[name]).tolist() == [each[name].numpy()[0] for each in alone]
    scores = np.concatenate([each["score"].numpy() for each in alone])
    np.testing.assert_allclose(tf.make_ndarray(outputs["score"]), scores, rtol=CLOSE)
    assert [bool(each["truncated"].numpy()[0]) for each in alone] == [False] * 3 + [True, False, False, True, True]


def test_rows_and_columns_of_json_mean_the_same(server):
    requests = pytest.importorskip("requests", reason="a client by hand")
    url = f"{server.rest}/v1/models/mirror/versions/1:predict"

    def post(**body):
        return requests.post(url, json=body, timeout=30).json()

    row = {"translation": "1: ja", "score": 2.0, "truncated": False}
    assert post(instances=["ja"]) == post(instances=[{"source": "ja"}]) == {"predictions": [row]}
    columns = {name: [value] for name, value in row.items()}
    assert post(inputs=["ja"]) == post(inputs={"source": ["ja"]}) == {"outputs": columns}
    assert post(instances=["ja", "no"], signature_name="bare") == {"predictions": ["ja", "no"]}
    for bad in ({"inputs": {"source": [7]}}, {"inputs": {"target": ["ja"]}}, {"inputs": ["ja"], "instances": ["ja"]}):
        reply = requests.post(url, json=bad, timeout=30)
        assert reply.status_code == 400 and reply.json().keys() == {"error"}
    status = requests.get(f"{server.rest}/v1/models/mirror", timeout=30).json()
    assert sorted(each["version"] for each in status["model_version_status"]) == ["1", "2"]
