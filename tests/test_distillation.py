"""Distillation with a stand-in for the teacher: order, pieces, interruption, what is left out."""

import hashlib
import types

import numpy as np
import pytest

from vq_keras.data import parallel_text
from vq_keras.distillation import SOURCE, TARGET, distill
from vq_keras.errors import InputError
from vq_keras.translator import Translation


class Upper:
    """Translates into capitals, "nothing" into nothing; stops at a call; counts the sentences of each call."""

    def __init__(self, weights=(1.0, 2.0), stop_at=None):
        self.search = types.SimpleNamespace(weights=[np.array(weights)])
        self.stop_at = stop_at
        self.calls = []

    def translate(self, sentences):
        if len(self.calls) == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append(list(sentences))
        texts = ["" if each == "nothing" else f"{each.upper()}\n!" for each in sentences]
        return [Translation(text, 0.0, len(text) > 30) for text in texts]


SENTENCES = [f"{'word ' * (number % 5)}{number}" for number in range(23)]
SETTINGS = {"beams": 4, "length_penalty": 0.6}


def test_the_output_is_parallel_text_in_the_order_of_the_sources(tmp_path):
    teacher = Upper()
    distill(teacher, SENTENCES, tmp_path, 5, SETTINGS)
    sources, targets = parallel_text.read(tmp_path / SOURCE, tmp_path / TARGET)
    assert sources == SENTENCES
    assert targets == [f"{sentence.upper()} !" for sentence in SENTENCES]
    lengths = [len(sentence) for call in teacher.calls for sentence in call]
    assert lengths == sorted(lengths)
    assert [len(call) for call in teacher.calls] == [5, 5, 5, 5, 3]


def test_an_interrupted_distillation_translates_what_is_missing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        distill(Upper(stop_at=3), SENTENCES, tmp_path, 5, SETTINGS)
    assert not (tmp_path / TARGET).exists()
    again = Upper()
    distill(again, SENTENCES, tmp_path, 5, SETTINGS)
    assert [len(call) for call in again.calls] == [5, 3]
    assert parallel_text.read(tmp_path / SOURCE, tmp_path / TARGET).sources == SENTENCES
    finished = Upper()
    before = hashlib.sha256((tmp_path / TARGET).read_bytes()).digest()
    distill(finished, SENTENCES, tmp_path, 5, SETTINGS)
    assert not finished.calls
    assert hashlib.sha256((tmp_path / TARGET).read_bytes()).digest() == before


def test_what_has_no_translation_is_left_out_and_counted(tmp_path, capsys):
    distill(Upper(), ["a", "nothing", "b" * 40, "c"], tmp_path, 5, SETTINGS)
    assert parallel_text.read(tmp_path / SOURCE, tmp_path / TARGET) == (["a", "c"], ["A !", "C !"])
    assert "2 of 4 sources were too long or had an empty translation." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("weights", "sentences", "settings", "differs"),
    [
        ((1.0, 3.0), SENTENCES, SETTINGS, "teacher"),
        ((1.0, 2.0), SENTENCES[:-1], SETTINGS, "sources"),
        ((1.0, 2.0), SENTENCES, {**SETTINGS, "beams": 1}, "beams 4, not 1"),
    ],
)
def test_a_folder_of_other_translations_is_refused(tmp_path, weights, sentences, settings, differs):
    distill(Upper(), SENTENCES, tmp_path, 5, SETTINGS)
    with pytest.raises(InputError, match=f"another configuration .*{differs}"):
        distill(Upper(weights), sentences, tmp_path, 5, settings)


def test_a_damaged_piece_is_told(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        distill(Upper(stop_at=3), SENTENCES, tmp_path, 5, SETTINGS)
    piece = next((tmp_path / "shards").iterdir())
    piece.write_text("\n".join(piece.read_text().split("\n")[2:]))
    with pytest.raises(InputError, match="damaged: 21 translations of 23; remove it"):
        distill(Upper(), SENTENCES, tmp_path, 5, SETTINGS)


def test_nothing_to_distill(tmp_path):
    with pytest.raises(InputError, match="None of the 2 sources got a translation: train the teacher for longer"):
        distill(Upper(), ["nothing", "nothing"], tmp_path / "empty", 5, SETTINGS)
    with pytest.raises(InputError, match="There are 0 sentences to translate"):
        distill(Upper(), [], tmp_path, 5, SETTINGS)
