"""Exports of translators: signatures equal the Python searches, ids and text, and compose; bad input is told of."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from translators import MAX_LENGTH, SIZES, make_latent_model, save_run, with_preferences

from export import export_translation
from vq_keras import model_card, warm_up
from vq_keras.data.vocabulary import EOS, FILE
from vq_keras.errors import InputError
from vq_keras.layers import NGrams
from vq_keras.models.parallel_transformer import ParallelTransformer
from vq_keras.search import AutoregressiveSearch, LatentSearch, ParallelSearch
from vq_keras.text_signatures import text_signatures
from vq_keras.training import runs
from vq_keras.translation_signatures import length_buckets, searches
from vq_keras.translator import Translator

pytestmark = [
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow writes SavedModels"),
    pytest.mark.slow,
    pytest.mark.xdist_group("translators"),  # What the fixtures export is exported once.
]
pytest.importorskip("tensorflow_text", reason="the tokenizer of exported graphs")
pytest.importorskip("tensorflow_serving", reason="the format of warm-up requests")

SENTENCES = [
    "two books",
    "",
    "the old house of the two old books",
    "Bücher, größer: ﬁ 日本",
    " das  Haus\n",
    "\0",
    " \n",
]


def sources(vocabulary, *lengths):
    rng = np.random.default_rng(0)
    rows = np.zeros((len(lengths), max(lengths)), "int32")
    for row, length in zip(rows, lengths, strict=True):
        row[: length - 1] = rng.integers(3, vocabulary.size, length - 1)
        row[length - 1] = EOS
    return rows


SHAPES = [(9, 2, 5), (2,), (12, 4, 3, 8, 11)]


def agree(outputs, expected):
    np.testing.assert_array_equal(outputs["target_ids"], expected["tokens"])
    # Sums of float32 terms in graphs that were made apart.
    np.testing.assert_allclose(outputs["score"], expected["scores"], rtol=1e-5)
    assert not np.any(outputs["truncated"])


@pytest.mark.parametrize("lengths", SHAPES)
def test_a_teacher_translates_ids_as_its_searches_do(exported, vocabulary, teacher, lengths):
    signatures, source = exported["teacher", "ids"], sources(vocabulary, *lengths)
    expected = AutoregressiveSearch(teacher).predict_on_batch(source)
    for name in ("translate", "serving_default"):
        agree(signatures[name](source_ids=source), expected)
    agree(signatures["translate_beam"](source_ids=source), AutoregressiveSearch(teacher, 4).predict_on_batch(source))
    scored = signatures["score"](source_ids=source, target_ids=expected["tokens"])
    np.testing.assert_allclose(scored["log_prob"], teacher.score(teacher.encode(source), expected["tokens"]), rtol=1e-5)


@pytest.mark.parametrize("lengths", SHAPES)
def test_a_latent_transformer_translates_ids_as_its_searches_do(exported, vocabulary, latent_model, lengths):
    signatures, source = exported["latent", "ids"], sources(vocabulary, *lengths)
    expected = LatentSearch(latent_model).predict_on_batch(source)
    for name in ("translate", "serving_default"):
        agree(signatures[name](source_ids=source), expected)
    agree(
        signatures["translate_candidates"](source_ids=source), LatentSearch(latent_model, 10).predict_on_batch(source)
    )


@pytest.mark.parametrize("lengths", SHAPES)
def test_encoder_predictor_and_decoder_together_translate(exported, vocabulary, lengths):
    signatures, source = exported["latent", "ids"], sources(vocabulary, *lengths)
    encoded = signatures["encode"](source_ids=source)
    assert not np.any(encoded.pop("truncated"))
    assert encoded["memory"].shape == (*source.shape, 16)
    np.testing.assert_array_equal(encoded["mask"], source > 0)
    predicted = signatures["predict_latents"](**encoded)
    assert set(predicted) == {"codes", "log_prob"}
    decoded = signatures["decode"](**encoded, codes=predicted["codes"])
    translated = signatures["translate"](source_ids=source)
    np.testing.assert_array_equal(decoded["target_ids"], translated["target_ids"])
    np.testing.assert_allclose(predicted["log_prob"] + decoded["log_prob"], translated["score"], rtol=1e-5)


def test_ngrams_count_in_signatures_as_in_searches(tmp_path, exported, vocabulary):
    import tensorflow as tf

    model, rng = make_latent_model(vocabulary), np.random.default_rng(0)
    text = [[*rng.integers(3, vocabulary.size, rng.integers(1, 8)).tolist(), EOS] for _ in range(300)]
    model.ngrams = NGrams.fit(text, vocabulary.size, 3)
    save_run(tmp_path / "run", model, vocabulary)
    for kind, options in (("ids", []), ("text", ["--text"])):
        assert export_translation.main([str(tmp_path / "run"), str(tmp_path / kind), *options]) == 0
    signatures = tf.saved_model.load(str(tmp_path / "ids" / "1")).signatures
    for lengths in SHAPES:
        source = sources(vocabulary, *lengths)
        translated = signatures["translate"](source_ids=source)
        agree(translated, LatentSearch(model).predict_on_batch(source))
        agree(signatures["translate_candidates"](source_ids=source), LatentSearch(model, 10).predict_on_batch(source))
        encoded = signatures["encode"](source_ids=source)
        encoded.pop("truncated")
        codes = signatures["predict_latents"](**encoded)["codes"]
        decoded = signatures["decode"](**encoded, codes=codes)
        np.testing.assert_array_equal(decoded["target_ids"], translated["target_ids"])
    # The same weights without n-grams write something else.
    plain = exported["latent", "ids"]["translate"](source_ids=source)["target_ids"]
    assert plain.shape != translated["target_ids"].shape or np.any(plain != translated["target_ids"])
    of_text = tf.saved_model.load(str(tmp_path / "text" / "1")).signatures["translate"]
    texts = of_text(source=np.array([s.encode() for s in SENTENCES], object))["translation"].numpy()
    expected = Translator(LatentSearch(model), vocabulary, MAX_LENGTH).translate(SENTENCES)
    assert [each.decode() for each in texts] == [each.text.lstrip(" ") for each in expected]


def test_a_parallel_transformer_translates_ids_as_its_searches_do(tmp_path, vocabulary):
    import tensorflow as tf

    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    model = with_preferences(ParallelTransformer(vocabulary.size, "fertility", **layers, **SIZES))
    save_run(tmp_path / "run", model, vocabulary)
    assert export_translation.main([str(tmp_path / "run"), str(tmp_path / "out"), "--candidates", "3"]) == 0
    signatures = tf.saved_model.load(str(tmp_path / "out" / "1")).signatures
    assert set(signatures) == {"translate", "translate_candidates", "encode", "serving_default"}
    source = sources(vocabulary, 9, 2, 5)
    agree(signatures["translate"](source_ids=source), ParallelSearch(model).predict_on_batch(source))
    agree(signatures["translate_candidates"](source_ids=source), ParallelSearch(model, 3).predict_on_batch(source))


@pytest.mark.parametrize("name", ["teacher", "latent"])
def test_text_becomes_what_the_translator_makes_of_it(exported, vocabulary, teacher, latent_model, name):
    signatures = exported[name, "text"]
    if name == "teacher":
        ours = {"translate": AutoregressiveSearch(teacher), "translate_beam": AutoregressiveSearch(teacher, 4)}
    else:
        ours = {"translate": LatentSearch(latent_model), "translate_candidates": LatentSearch(latent_model, 10)}
    assert set(signatures) == {*ours, "serving_default"}
    for key, search in ours.items():
        expected = Translator(search, vocabulary, MAX_LENGTH).translate(SENTENCES)
        outputs = {
            k: v.numpy() for k, v in signatures[key](source=np.array([s.encode() for s in SENTENCES], object)).items()
        }
        texts = [each.decode() for each in outputs["translation"]]
        assert texts == [each.text.lstrip(" ") for each in expected]
        assert outputs["truncated"].tolist() == [each.truncated for each in expected]
        assert outputs["truncated"].any() and len(set(texts)) > 3 and texts[1] == ""
        np.testing.assert_allclose(outputs["score"], [each.score for each in expected], rtol=1e-5)


def test_an_empty_batch_has_empty_results(exported):
    ids, memory = np.zeros((0, 3), "int32"), np.zeros((0, 3, 16), "float32")
    encoded = {"memory": memory, "mask": ids}
    inputs = {
        "score": {"source_ids": ids, "target_ids": ids},
        "predict_latents": encoded,
        "decode": {"codes": ids, **encoded},
    }
    for (_, kind), signatures in exported.items():
        source = {"source": np.zeros((0,), object)} if kind == "text" else {"source_ids": ids}
        for name, signature in signatures.items():
            outputs = signature(**inputs.get(name, source))
            assert {len(output) for output in outputs.values()} == {0}


def test_ids_need_no_operation_of_tensorflow_text(exported):
    for (_, kind), signatures in exported.items():
        graph = signatures["translate"].graph.as_graph_def()
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        assert any("Sentencepiece" in node.op for node in nodes) == (kind == "text")


def test_the_model_card_tells_of_the_run_and_of_every_tensor(versions, exported, latent_model):
    card = json.loads((versions["latent", "ids"] / model_card.FILE).read_text())
    assert (card["model"], card["parameters"]) == ("LatentTransformer", latent_model.count_params())
    assert card["config"]["max_length"] == card["max_length"] == MAX_LENGTH
    assert (card["data"], card["metrics"]) == ({"dataset": "files"}, {"greedy": {"bleu": 12.5}})
    assert len(card["commit"].removesuffix("-dirty")) == 40
    signatures = exported["latent", "ids"]
    assert {*card["signatures"], "serving_default"} == set(signatures)
    assert [name for name, each in card["signatures"].items() if each["serving_default"]] == ["translate"]
    assert card["signatures"]["decode"]["inputs"]["memory"] == {
        "dtype": "float32",
        "shape": [None, None, 16],
        "about": "what the encoder says of each source id",
    }
    for name, each in card["signatures"].items():
        assert set(each["inputs"]) == set(signatures[name].structured_input_signature[1])
        assert set(each["outputs"]) == set(signatures[name].structured_outputs)


def test_warm_up_requests_are_one_for_each_signature_and_length(versions, exported, vocabulary):
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    assert [length_buckets(n) for n in (2, 8, 9, 100)] == [[2], [8], [8, 9], [8, 16, 32, 64, 100]]
    for key, version in versions.items():
        seen = []
        for record in tf.data.TFRecordDataset(str(version / warm_up.FILE)).as_numpy_iterator():
            request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            exported[key][request.model_spec.signature_name](**{name: tf.constant(x) for name, x in inputs.items()})
            first = inputs.get("source_ids", inputs.get("mask"))
            length = len(vocabulary.encode([inputs["source"][0].decode()])[0]) if key[1] == "text" else first.shape[1]
            # A word of text may be two ids, so that a sentence does not fill its bucket.
            seen.append((request.model_spec.signature_name, min(n for n in (8, MAX_LENGTH) if n >= length)))
        names = set(exported[key]) - {"serving_default"}
        assert sorted(seen) == sorted((name, length) for name in names for length in (8, MAX_LENGTH))


@pytest.mark.parametrize("kind", ["ids", "text"])
def test_the_command_line_of_saved_models_runs_exports(versions, exported, kind):
    bin_directory = pathlib.Path(sys.executable).parent
    if kind == "ids":
        command, value, output = [str(bin_directory / "saved_model_cli")], "source_ids=[[5, 1]]", "target_ids"
        expected = exported["latent", "ids"]["translate"](source_ids=np.array([[5, 1]], "int32"))
    else:
        command = [sys.executable, "-c", "from vq_keras.saved_model_cli import main; main()"]
        value, output = 'source=["two books"]', "translation"
        expected = exported["latent", "text"]["translate"](source=np.array([b"two books"], object))
    command += ["run", "--dir", str(versions["latent", kind]), "--tag_set", "serve"]
    command += ["--signature_def", "serving_default", "--input_exprs", value]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert result.returncode == 0, result.stderr
    assert f"Result for output key {output}:\n{expected[output].numpy()}" in result.stdout


def test_errors_are_one_sentence(tmp_path, capsys, vocabulary, teacher, latent_model):
    def error(run, *options):
        assert export_translation.main([str(tmp_path / run), str(tmp_path / "out"), *options]) == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert f"error: {tmp_path / 'nothing'} is neither a run directory (it has no config.json) nor" in error("nothing")
    runs.claim(tmp_path / "images", {})
    assert "is not the run of a translator" in error("images")
    save_run(tmp_path / "teacher", teacher, vocabulary)
    save_run(tmp_path / "latent", latent_model, vocabulary)
    assert "a Transformer has no candidates" in error("teacher", "--candidates", "4")
    assert "a LatentTransformer has no beam search" in error("latent", "--beams", "4")
    assert "beams is 1; give at least 2" in error("teacher", "--beams", "1")
    assert "max_length is 1; give at least 2" in error("teacher", "--max-length", "1")
    (tmp_path / "teacher" / "metrics.json").write_text("{")
    assert "metrics.json is damaged; evaluate the run again" in error("teacher")
    (tmp_path / "teacher" / FILE).unlink()
    assert "vocabulary.model cannot be read" in error("teacher")
    with pytest.raises(InputError, match="max_length is 1; give at least 2"):
        text_signatures(searches(teacher), vocabulary, 1)
    with pytest.raises(InputError, match="a Sequential does not translate"):
        searches(keras.Sequential())
