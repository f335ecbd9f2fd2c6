"""The exported folder translates as the run does, with the lines of Python that the command prints."""

import keras
import pytest

from export import export_ctranslate2
from vq_keras.bottlenecks import VectorQuantizer
from vq_keras.data.translation_data import Pairs
from vq_keras.data.vocabulary import FILE, Vocabulary
from vq_keras.models.latent_transformer import LatentTransformer
from vq_keras.models.transformer import Transformer
from vq_keras.search import MORE_TOKENS, AutoregressiveSearch
from vq_keras.training import runs
from vq_keras.translator import Translator

ctranslate2 = pytest.importorskip("ctranslate2", reason="the engine that the weights are written for")
sentencepiece = pytest.importorskip("sentencepiece", reason="vocabularies are trained and run by SentencePiece")

PAIRS = Pairs(["two books", "the old house"] * 3, ["zwei Bücher", "das alte Haus"] * 3)
SIZES = {"hidden_dim": 16, "num_heads": 2, "feed_forward_dim": 24}


def save_run(folder, model, vocabulary):
    runs.claim(folder, {"vocabulary": vocabulary.fingerprint})
    vocabulary.save(folder / FILE)
    runs.save_model(model, folder)


def test_sentences_become_what_the_run_makes_of_them(tmp_path, capsys):
    keras.utils.set_random_seed(0)
    vocabulary = Vocabulary.train(PAIRS, size=290)
    model = Transformer(vocabulary.size, num_encoder_layers=1, num_decoder_layers=1, **SIZES)
    # Otherwise each token, the end first of all, predicts itself: the table that embeds it also makes its logit.
    model.decoder.norm.gamma.assign(keras.random.normal((16,), seed=0))
    model.embedding.table.assign(3.0 * model.embedding.table)
    save_run(tmp_path / "run", model, vocabulary)
    assert export_ctranslate2.main([str(tmp_path / "run"), str(tmp_path / "out" / "model")]) == 0
    _, _, usage = capsys.readouterr().out.partition("\n\n")

    names = {}
    exec(usage, names)
    assert capsys.readouterr().out.strip()
    translator, processor = names["translator"], names["vocabulary"]
    sentences = ["zwei", "two books", "the old"]
    # At most so many tokens more than the sentence's own, its end among them, whether the random weights end or not.
    texts = []
    for pieces in processor.encode(sentences, out_type=str):
        limits = {"min_decoding_length": 0, "max_decoding_length": len(pieces) + 1 + MORE_TOKENS}
        found = translator.translate_batch([pieces], beam_size=1, **limits)
        texts.append(processor.decode(found[0].hypotheses[0]))
    expected = Translator(AutoregressiveSearch(model), vocabulary, max_length=8).translate(sentences)
    assert texts == [each.text for each in expected]
    assert all(texts)


def test_errors_are_one_sentence(tmp_path, capsys):
    out = str(tmp_path / "out")
    assert export_ctranslate2.main([str(tmp_path), out]) == 2
    assert f"error: {tmp_path} is neither a run directory (it has no config.json) nor" in capsys.readouterr().err
    runs.claim(tmp_path / "images", {})
    assert export_ctranslate2.main([str(tmp_path / "images"), out]) == 2
    assert "is not the run of a translator" in capsys.readouterr().err
    vocabulary = Vocabulary.train(PAIRS, size=290)
    layers = {"num_encoder_layers": 1, "num_predictor_layers": 1, "num_decoder_layers": 1}
    model = LatentTransformer(vocabulary.size, VectorQuantizer(4, seed=0), 1, **layers, **SIZES)
    save_run(tmp_path / "latent", model, vocabulary)
    assert export_ctranslate2.main([str(tmp_path / "latent"), out]) == 2
    error = capsys.readouterr().err
    assert error == "error: CTranslate2 has autoregressive Transformers alone: the model is a LatentTransformer.\n"
    assert not (tmp_path / "out").exists()
