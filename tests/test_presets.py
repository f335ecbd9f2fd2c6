"""Presets: half the weights' size, nearly the same translations, found by name, and the ones of the library."""

import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
from compiled import numpy

from export import export_preset
from vq_keras import bottlenecks, presets
from vq_keras.data import number_sentences
from vq_keras.data.translation_data import Pairs
from vq_keras.data.vocabulary import FILE, Vocabulary
from vq_keras.errors import InputError
from vq_keras.models.latent_transformer import LatentTransformer
from vq_keras.models.parallel_transformer import ParallelTransformer
from vq_keras.models.transformer import Transformer
from vq_keras.search import AutoregressiveSearch, LatentSearch, ParallelSearch
from vq_keras.training import runs
from vq_keras.translator import Translator

SIZES = {"hidden_dim": 16, "num_heads": 2, "feed_forward_dim": 16}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    keras.utils.set_random_seed(0)
    train = number_sentences.load().train
    vocabulary = Vocabulary.train(Pairs(train.sources[:60], train.targets[:60]), 400)
    bottleneck = bottlenecks.SoftEM(num_codes=8, num_samples=2, initializer="normal")
    model = LatentTransformer(vocabulary.size, bottleneck, 2, 1, 1, 1, **SIZES)
    model.bottleneck.codebook.counts.assign([[1e5] + [1.0] * 7])  # More than float16 can hold.
    run_dir = tmp_path_factory.mktemp("runs") / "latent"
    runs.claim(run_dir, {"vocabulary": vocabulary.fingerprint, "max_length": 64})
    vocabulary.save(run_dir / FILE)
    (run_dir / "metrics.json").write_text("{}")
    (run_dir / "history.csv").write_text("step\n")
    runs.save_model(model, run_dir)
    return run_dir


def test_a_preset_is_its_run_in_half_precision(tmp_path, monkeypatch, run, capsys):
    out = tmp_path / "presets" / "small"
    assert export_preset.main([str(run), str(out)]) == 0
    assert f"{out}: 0." in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {"config.json", "metrics.json", FILE, "model.keras"}
    assert [path.name for path in out.parent.iterdir()] == ["small"]
    with zipfile.ZipFile(out / "model.keras") as archive:
        archive.extract("model.weights.h5", tmp_path)
    dtypes = []
    with h5py.File(tmp_path / "model.weights.h5") as file:
        file.visititems(lambda _, item: dtypes.append(item.dtype) if isinstance(item, h5py.Dataset) else None)
    assert dtypes.count(np.dtype("float32")) == 1 and dtypes.count(np.dtype("float16")) > 50

    monkeypatch.setattr(presets, "_FOLDER", out.parent)
    assert presets.names() == ["small"]
    whole, vocabulary, config = runs.load_translator(run)
    half, its_vocabulary, its_config = runs.load_translator("small")
    assert (its_vocabulary.proto, its_config) == (vocabulary.proto, config)
    for weight, exact in zip(half.weights, whole.weights, strict=True):
        assert weight.dtype == exact.dtype
        # Eleven bits of mantissa, and 6e-8 where float16 is subnormal.
        np.testing.assert_allclose(numpy(weight), numpy(exact), rtol=2**-11, atol=6e-8)
    assert isinstance(LatentTransformer.from_preset("small"), LatentTransformer)
    with pytest.raises(InputError, match="preset 'small' is a LatentTransformer, not a Transformer"):
        Transformer.from_preset("small")
    with pytest.raises(InputError, match="there is no preset 'large'; the known ones are small"):
        Transformer.from_preset("large")


def test_nothing_is_overwritten(tmp_path, run, capsys):
    out = tmp_path / "there"
    out.mkdir()
    assert export_preset.main([str(run), str(out)]) == 2
    assert capsys.readouterr().err == f"error: {out} exists already; give a folder that does not.\n"
    assert export_preset.main([str(tmp_path / "none"), str(tmp_path / "out")]) == 2
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("name", presets.names())
def test_the_presets_of_the_library_translate_captions(name):
    folder = presets.folder(name)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 30e6
    card = (folder / "README.md").read_text()
    for figures in json.loads((folder / "metrics.json").read_text()).values():
        assert f"{figures['bleu']:.2f}" in card
    model, vocabulary, config = runs.load_translator(name)
    searches = {Transformer: AutoregressiveSearch, LatentTransformer: LatentSearch, ParallelTransformer: ParallelSearch}
    search = searches[type(model)](model)
    translator = Translator(search, vocabulary, config["max_length"])
    assert translator.translate(["Two dogs are playing in the snow."])[0].text == "Zwei Hunde spielen im Schnee."
