"""The same weights in CTranslate2: its searches find what ours find, with the same scores."""

import sys
import types

import keras
import numpy as np
import pytest
from compiled import numpy

from vq_keras import ctranslate2_model
from vq_keras.data.vocabulary import EOS
from vq_keras.errors import InputError
from vq_keras.models.transformer import Transformer
from vq_keras.search import MORE_TOKENS, AutoregressiveSearch

ctranslate2 = pytest.importorskip("ctranslate2", reason="the engine that the weights are written for")

SIZE, DIM, END = 40, 16, 2
PIECES = ["<pad>", "</s>", "<unk>", *(f"piece{i}" for i in range(3, SIZE))]
VOCABULARY = types.SimpleNamespace(pieces=PIECES, save=lambda path: path.write_bytes(b"pieces"))


def sharpened(seed, num_encoder_layers, num_decoder_layers, num_heads):
    """A model with preferences, all of whose weights are random, so that none can stand for another.

    Unit END of its decoder holds the slow sine of the position alone, and the end's embedding looks at nothing else:
    translations end sooner or later, as those of trained models do.
    """
    model = Transformer(SIZE, num_encoder_layers, num_decoder_layers, DIM, num_heads, 24, dropout=0.0)
    rng = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        scale = weight.shape[0] ** -0.5 if len(weight.shape) == 2 else 0.2
        weight.assign(rng.normal(weight.name == "gamma", scale, weight.shape))
    table = rng.normal(0.0, 1.0, (SIZE, DIM))
    table[:, END] = 0.0
    table[EOS] = -60.0 * (np.arange(DIM) == END)
    model.embedding.table.assign(table)
    gamma = rng.normal(0.0, 1.0, DIM)
    gamma[END] = -1.0
    model.decoder.norm.gamma.assign(gamma)
    for block in model.decoder.blocks:
        for last in (block.attention.project_out, block.cross_attention.project_out, block.contract):
            for weight in last.trainable_weights:
                weight.assign(numpy(weight) * (np.arange(DIM) != END))
    return model


def sentences(*lengths):
    rng = np.random.default_rng(0)
    rows = np.zeros((len(lengths), max(lengths)), "int32")
    for row, length in zip(rows, lengths, strict=True):
        row[: length - 1] = rng.integers(2, SIZE, length - 1)
        row[length - 1] = EOS
    return rows


SOURCE = sentences(8, 3, 5, 4, 7, 2, 6)


def translated(folder, beams):
    """What the engine finds where it defines the same search as ours: ids and scores."""
    found = ctranslate2.Translator(str(folder), intra_threads=1).translate_batch(
        [[PIECES[i] for i in row if i > EOS] for row in SOURCE],
        beam_size=beams,
        length_penalty=0,
        max_decoding_length=SOURCE.shape[1] + MORE_TOKENS,
        return_end_token=True,
        return_scores=True,
    )
    return [[PIECES.index(piece) for piece in each.hypotheses[0]] for each in found], [each.scores[0] for each in found]


# Seeds with which no end that ranks below the beams wins, and the beam search ends before the greatest length.
@pytest.mark.parametrize(("seed", "sizes"), [pytest.param(0, (1, 2, 2), marks=pytest.mark.slow), (1, (2, 1, 4))])
def test_its_searches_find_what_ours_do(tmp_path, seed, sizes):
    model = sharpened(seed, *sizes)
    ctranslate2_model.write(tmp_path / "model", model, VOCABULARY)
    found = {}
    for beams in (1, 4):
        outputs = AutoregressiveSearch(model, beams, length_penalty=0.0).predict_on_batch(SOURCE)
        expected = np.asarray(outputs["tokens"])
        ids, scores = translated(tmp_path / "model", beams)
        # Ours ends a translation at 50 tokens more than its own source, the engine all of a call at one length.
        limits = np.count_nonzero(SOURCE, axis=1) + MORE_TOKENS
        for row, its, limit in zip(expected, ids, limits, strict=True):
            np.testing.assert_array_equal(row[: len(its[:limit])], its[:limit])
            assert not row[len(its[:limit]) :].any()
        ended = [len(its) <= limit for its, limit in zip(ids, limits, strict=True)]
        # Sums of at most 58 float32 terms, of logits that other kernels computed.
        np.testing.assert_allclose(np.array(scores)[ended], np.asarray(outputs["scores"])[ended], rtol=1e-4)
        found[beams] = ids
    assert len({len(ids) for ids in found[4]}) > 1
    assert found[1] != found[4]


def test_bad_input(tmp_path, monkeypatch):
    model = sharpened(0, 1, 1, 2)
    with pytest.raises(
        InputError, match="CTranslate2 has autoregressive Transformers alone: the model is a Sequential"
    ):
        ctranslate2_model.write(tmp_path / "model", keras.Sequential(), VOCABULARY)
    with pytest.raises(InputError, match="is there already; give a folder that does not exist yet"):
        ctranslate2_model.write(tmp_path, model, VOCABULARY)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        ctranslate2_model.write(tmp_path / "file" / "model", model, VOCABULARY)
    monkeypatch.setitem(sys.modules, "ctranslate2.specs", None)
    with pytest.raises(InputError, match=r"pip install 'vq_keras\[ctranslate2\]'"):
        ctranslate2_model.write(tmp_path / "model", model, VOCABULARY)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
