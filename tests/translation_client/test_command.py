"""The command as its users see it: lines in, lines out, what it says, its exit status."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import keras
import pytest
from scripted_servers import grpc_server, mirror, rest_server

import vq_keras
from vq_keras import translate

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="no backend is used: one run of these tests is enough"
)
for module in ("grpc", "requests", "tenacity", "tensorflow_serving.apis"):
    pytest.importorskip(module, reason="the client's protocols")

# As where neither is installed: importing them fails.
WITHOUT = "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None; "
COMMAND = [sys.executable, "-c", WITHOUT + "import runpy; runpy.run_module('vq_keras.translate', run_name='__main__')"]
PACKAGES = Path(vq_keras.__file__).parent
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(PACKAGES.parent), os.environ.get("PYTHONPATH", "")])}


def run(*arguments, lines=b"", **environment):
    environment = ENVIRONMENT | environment
    result = subprocess.run([*COMMAND, *arguments], input=lines, capture_output=True, env=environment, check=False)
    return result.returncode, result.stdout, result.stderr.decode()


def test_help_is_there_before_anything_is_imported_that_takes_long():
    command = [sys.executable, "-X", "importtime", "-m", "vq_keras.translate", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert "grpcs://HOST:PORT for gRPC" in result.stdout
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "tyro" in imported and not imported & {"tensorflow", "keras", "grpc", "requests", "rich.progress"}


@pytest.mark.parametrize("serve", [grpc_server, rest_server])
def test_a_server_needs_neither_tensorflow_nor_keras_where_its_client_runs(serve):
    lines = "\ufefftwo books\r\n\n größer \nthe last line has no end".encode()
    with serve(mirror) as address:
        status, out, err = run("--server", address, "--name", "captions", lines=lines)
    assert (status, err) == (0, "")
    assert out.decode() == "TWO BOOKS\n\nGRÖSSER\nTHE LAST LINE HAS NO END\n"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_an_encrypted_server_is_one_whose_certificate_is_trusted(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    with grpc_server(mirror, (key.read_bytes(), certificate.read_bytes())) as address:
        # By its number: of the two that localhost has, gRPC tells what the last one said.
        address = address.replace("localhost", "127.0.0.1")
        arguments = ["--server", f"grpcs://{address}", "--name", "captions", "--attempts", "1"]
        trusted = run(*arguments, lines=b"two books\n", GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=str(certificate))
        assert trusted == (0, b"TWO BOOKS\n", "")
        status, out, err = run(*arguments, lines=b"two books\n")
        assert (status, out) == (2, b"")
        told = err.splitlines()[-1]  # gRPC writes there, too.
        assert (
            told.startswith(f"error: No translations from grpcs://{address} (") and "CERTIFICATE_VERIFY_FAILED" in told
        )
        # A server that expects encryption has nothing to say to who does not offer it.
        status, _, err = run(*arguments[:1], address, *arguments[2:], lines=b"two books\n")
        assert status == 2 and err.splitlines()[-1].startswith(f"error: No translations from {address} (")


def test_lines_that_fail_stay_and_are_named():
    def script(sentences):
        if "refuse me" in sentences:
            return "INVALID_ARGUMENT"
        return mirror(sentences) | {"truncated": [len(sentence) > 5 for sentence in sentences]}

    lines = b"one\nrefuse me\nB\xfccher\nB\xfccher\nlonger\ntwo\n"
    with grpc_server(script) as address:
        status, out, err = run("--server", address, "--name", "captions", lines=lines)
    assert status == 1
    assert out == b"ONE\n\n\n\nLONGER\nTWO\n"
    assert err.splitlines() == [
        "line 2: not translated: INVALID_ARGUMENT: as the script has it",
        "lines 3 to 4: not translated: it is not UTF-8",
        "line 5: longer than the model takes, and translated as far as that",
    ]


def test_a_translation_stays_a_line():
    with grpc_server(lambda sentences: mirror(sentences) | {"translation": ["a\nb\r"] * len(sentences)}) as address:
        assert run("--server", address, "--name", "captions", lines=b"one\n")[1] == b"a b \n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_a_full_disk_is_told_in_a_sentence():
    with grpc_server(mirror) as address, Path("/dev/full").open("wb") as full:
        command = [*COMMAND, "--server", address, "--name", "captions"]
        result = subprocess.run(
            command, input=b"one\n", stdout=full, stderr=subprocess.PIPE, env=ENVIRONMENT, check=False
        )
    assert result.returncode == 1
    assert result.stderr.decode() == "error: standard input or output fails (No space left on device).\n"


def test_a_closed_standard_input_is_told_in_a_sentence():
    result = subprocess.run(
        ["bash", "-c", '"$@" <&-', "-", *COMMAND], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert result.returncode == 2
    assert result.stderr == "error: sentences come from standard input and go to standard output: open both.\n"


def test_an_interruption_writes_what_was_translated_and_names_the_rest():
    gate, last = threading.Event(), threading.Event()

    def script(sentences):
        if "stuck" in sentences:
            gate.wait(30)
        if "last" in sentences:
            last.set()
        return mirror(sentences)

    with grpc_server(script) as address:
        options = ["--server", address, "--name", "captions", "--batch-size", "1", "--in-flight", "2"]
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen([*COMMAND, *options], env=ENVIRONMENT, **streams) as process:
            process.stdin.write(b"first\nstuck\nlast\nand one more\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"FIRST\n"
            assert last.wait(10)
            process.send_signal(signal.SIGINT)
            # Its standard input is still open, and a request on its way: it ends all the same.
            out, err = process.stdout.read(), process.stderr.read().decode().splitlines()
            assert process.wait(10) == 130
        gate.set()
    # The last ones have come back by then, or not.
    assert out in (b"\n\n\n", b"\nLAST\n\n", b"\nLAST\nAND ONE MORE\n")
    assert err[0].startswith("line") and err[0].endswith(": not translated: interrupted")
    assert err[-1] == "stopped (interrupted): nothing was read after line 4."


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--server", "localhost:1"], "--server has models by name: give --name."),
        (["--server", "localhost", "--name", "x"], "the server is 'localhost': give HOST:PORT for gRPC, or http://"),
        (["--server", "a:1", "--model", "x"], "--model translates in this process and --server at another"),
        (["--name", "captions"], "--name and --label are those of a model at a server: give --server, too."),
        (["--model", "no/where"], "no/where is neither a run directory (it has no config.json) nor one of the presets"),
        (["--version", "1"], "multi30k-en-de-latent is no SavedModel and has no versions: leave out the version."),
        (["--model", "x.tflite", "--signature", "no"], "x.tflite translates in one way: leave out the signature."),
        (["--model", "x.tflite", "--version", "1"], "x.tflite is no SavedModel and has no versions: leave out"),
    ],
)
def test_what_does_not_fit_is_told_in_a_sentence(capsys, arguments, said):
    assert translate.main(arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: {said}")


def test_versions_of_a_saved_model_are_found_or_told(tmp_path):
    from vq_keras.errors import InputError
    from vq_keras.translation_client.saved_model_translator import find_version

    for number in (1, 9, 10):
        (tmp_path / "model" / str(number)).mkdir(parents=True)
        (tmp_path / "model" / str(number) / "saved_model.pb").touch()
    assert find_version(tmp_path / "model", None) == tmp_path / "model/10"
    assert find_version(tmp_path / "model", 9) == find_version(tmp_path / "model/9", 9) == tmp_path / "model/9"
    with pytest.raises(InputError, match="has no version 2: it has 1, 9, 10"):
        find_version(tmp_path / "model", 2)
    with pytest.raises(InputError, match="is no SavedModel: neither it nor a version's folder in it has saved_model"):
        find_version(tmp_path, None)
    with pytest.raises(InputError, match="is one version of a model: leave out the version"):
        find_version(tmp_path / "model/9", 2)


def test_all_packages_are_found_where_they_are_installed():
    folders = {path.parent for path in PACKAGES.rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)
