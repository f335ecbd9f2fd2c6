"""The folder of a run that is damaged, or of another version: one sentence."""

import json
import zipfile

import keras
import pytest

from vq_keras.errors import InputError
from vq_keras.training import runs


@pytest.fixture
def run(tmp_path):
    runs.claim(tmp_path / "run", {"steps": 3})
    runs.save_model(keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]), tmp_path / "run")
    return tmp_path / "run"


def test_a_run_of_another_format_says_so(run):
    assert runs.load_config(run) == {"format": 1, "steps": 3}
    runs.claim(run, {"steps": 3})
    (run / "config.json").write_text('{"steps": 3}')  # As presets and the runs before there was a number.
    assert runs.load_config(run) == {"format": 1, "steps": 3}
    runs.claim(run, {"steps": 3})
    (run / "config.json").write_text('{"steps": 3, "format": 2}')
    with pytest.raises(InputError, match="is of format 2, and this version of vq_keras knows format 1: use"):
        runs.load_model(run)


@pytest.mark.parametrize("content", ["", "{", "[1]", '"config"', "\0"])
def test_a_damaged_configuration_says_so(run, content):
    (run / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json is damaged"):
        runs.load_config(run)


def test_figures_are_read_where_there_are_any(run):
    assert runs.load_metrics(run) is None
    (run / "metrics.json").write_text('{"bleu": 3.5}')
    assert runs.load_metrics(run) == {"bleu": 3.5}
    (run / "metrics.json").write_text('{"bleu"')
    with pytest.raises(InputError, match=r"metrics\.json is damaged; evaluate the run again, or remove the file\."):
        runs.load_metrics(run)


def test_a_damaged_model_says_so(run):
    whole = (run / "model.keras").read_bytes()
    half = len(whole) // 2
    flipped = bytes(byte ^ 255 if abs(i - half) < 10 else byte for i, byte in enumerate(whole))
    for damaged in (b"", whole[:half], flipped):
        (run / "model.keras").write_bytes(damaged)
        with pytest.raises(InputError, match=r"model\.keras cannot be read .*: it is damaged, or of another version"):
            runs.load_model(run)


def test_a_model_of_classes_to_come_says_so(run):
    with zipfile.ZipFile(run / "model.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    config |= {"class_name": "VideoTransformer", "registered_name": "vq_keras>VideoTransformer", "module": None}
    with zipfile.ZipFile(run / "model.keras", "w") as archive:
        for name, content in {**parts, "config.json": json.dumps(config).encode()}.items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match="it is damaged, or of another version of vq_keras; use the version that"):
        runs.load_model(run)
