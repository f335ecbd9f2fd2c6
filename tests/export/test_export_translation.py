"""Exports of translators: signatures equal the Python searches, ids and text, and compose; bad input is told of."""

import keras
import numpy as np
import pytest

from export import export_translation
from vq_keras.bottlenecks import VectorQuantizer
from vq_keras.data.translation_data import Pairs
from vq_keras.data.vocabulary import EOS, FILE, Vocabulary
from vq_keras.errors import InputError
from vq_keras.models.latent_transformer import LatentTransformer
from vq_keras.models.parallel_transformer import ParallelTransformer
from vq_keras.models.transformer import Transformer
from vq_keras.search import AutoregressiveSearch, LatentSearch, ParallelSearch
from vq_keras.training import runs
from vq_keras.translation_signatures import searches, text_signatures
from vq_keras.translator import Translator

pytestmark = [
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow writes SavedModels"),
    pytest.mark.slow,
]
pytest.importorskip("tensorflow_text", reason="the tokenizer of exported graphs")

PAIRS = Pairs(["two books", "the old house"] * 3, ["zwei Bücher", "das alte Haus"] * 3)
SIZES = {"hidden_dim": 16, "num_heads": 2, "feed_forward_dim": 24}
MAX_LENGTH = 12
SENTENCES = ["two books", "", "the old house of the two old books", "Bücher, größer: ﬁ 日本", " das  Haus\n", "\0"]


def save_run(folder, model, vocabulary):
    runs.claim(folder, {"vocabulary": vocabulary.fingerprint, "max_length": MAX_LENGTH})
    vocabulary.save(folder / FILE)
    runs.save_model(model, folder)


def with_preferences(model):
    """An untrained model hardly has any; and the table that embeds a token would make it predict itself."""
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        scale = 2.0 * weight.shape[0] ** -0.5 if len(weight.shape) == 2 else 0.2
        weight.assign(rng.normal(weight.name == "gamma", scale, weight.shape))
    decoder = model.decoder if isinstance(model, Transformer) else model.token_decoder
    decoder.norm.gamma.assign(rng.normal(0.0, 1.0, 16))
    table = rng.normal(0.0, 1.0, model.embedding.table.shape)
    table[EOS] *= 1.5  # Ends sometimes.
    model.embedding.table.assign(table)
    return model


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.train(PAIRS, size=290)


@pytest.fixture(scope="module")
def teacher(vocabulary):
    keras.utils.set_random_seed(0)
    return with_preferences(Transformer(vocabulary.size, num_encoder_layers=1, num_decoder_layers=1, **SIZES))


@pytest.fixture(scope="module")
def latent_model(vocabulary):
    keras.utils.set_random_seed(1)
    bottleneck = VectorQuantizer(5, initializer="normal", seed=0)
    layers = {"num_encoder_layers": 1, "num_predictor_layers": 1, "num_decoder_layers": 1}
    model = LatentTransformer(vocabulary.size, bottleneck, 2, decoder="ctc", **layers, **SIZES)
    return with_preferences(model)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, vocabulary, teacher, latent_model):
    """The signatures of each run, of ids and of text."""
    import tensorflow as tf

    found = {}
    for name, model in (("teacher", teacher), ("latent", latent_model)):
        folder = tmp_path_factory.mktemp(name)
        save_run(folder / "run", model, vocabulary)
        assert export_translation.main([str(folder / "run"), str(folder / "ids")]) == 0
        assert export_translation.main([str(folder / "run"), str(folder / "text"), "--text"]) == 0
        for kind in ("ids", "text"):
            found[name, kind] = tf.saved_model.load(str(folder / kind / "1")).signatures
    return found


def sources(vocabulary, *lengths):
    rng = np.random.default_rng(0)
    rows = np.zeros((len(lengths), max(lengths)), "int32")
    for row, length in zip(rows, lengths, strict=True):
        row[: length - 1] = rng.integers(3, vocabulary.size, length - 1)
        row[length - 1] = EOS
    return rows


SHAPES = [(9, 2, 5), (1,), (17, 4, 3, 8, 16)]


def agree(outputs, expected):
    np.testing.assert_array_equal(outputs["tokens"], expected["tokens"])
    # Sums of float32 terms in graphs that were made apart.
    np.testing.assert_allclose(outputs["scores"], expected["scores"], rtol=1e-4)


@pytest.mark.parametrize("lengths", SHAPES)
def test_a_teacher_translates_ids_as_its_searches_do(exported, vocabulary, teacher, lengths):
    signatures, source = exported["teacher", "ids"], sources(vocabulary, *lengths)
    expected = AutoregressiveSearch(teacher).predict_on_batch(source)
    for name in ("translate", "serving_default"):
        agree(signatures[name](source=source), expected)
    agree(signatures["translate_beam"](source=source), AutoregressiveSearch(teacher, 4).predict_on_batch(source))
    scored = signatures["score"](source=source, target=expected["tokens"])
    np.testing.assert_allclose(scored["log_prob"], teacher.score(teacher.encode(source), expected["tokens"]), rtol=1e-4)


@pytest.mark.parametrize("lengths", SHAPES)
def test_a_latent_transformer_translates_ids_as_its_searches_do(exported, vocabulary, latent_model, lengths):
    signatures, source = exported["latent", "ids"], sources(vocabulary, *lengths)
    expected = LatentSearch(latent_model).predict_on_batch(source)
    for name in ("translate", "serving_default"):
        agree(signatures[name](source=source), expected)
    agree(signatures["translate_candidates"](source=source), LatentSearch(latent_model, 10).predict_on_batch(source))


@pytest.mark.parametrize("lengths", SHAPES)
def test_predictor_and_decoder_together_translate(exported, vocabulary, lengths):
    signatures, source = exported["latent", "ids"], sources(vocabulary, *lengths)
    predicted = signatures["predict_latents"](source=source)
    log_prob = predicted.pop("log_prob")
    assert {name: (each.dtype.name, len(each.shape)) for name, each in predicted.items()} == {
        "codes": ("int32", 2),
        "memory": ("float32", 3),
        "mask": ("int32", 2),
    }
    np.testing.assert_array_equal(predicted["mask"], source > 0)
    decoded = signatures["decode"](**predicted)
    agree(
        {"tokens": decoded["tokens"], "scores": log_prob + decoded["log_prob"]}, signatures["translate"](source=source)
    )


def test_a_parallel_transformer_translates_ids_as_its_searches_do(tmp_path, vocabulary):
    import tensorflow as tf

    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    model = with_preferences(ParallelTransformer(vocabulary.size, "fertility", **layers, **SIZES))
    save_run(tmp_path / "run", model, vocabulary)
    assert export_translation.main([str(tmp_path / "run"), str(tmp_path / "out"), "--candidates", "3"]) == 0
    signatures = tf.saved_model.load(str(tmp_path / "out" / "1")).signatures
    assert set(signatures) == {"translate", "translate_candidates", "serving_default"}
    source = sources(vocabulary, 9, 2, 5)
    agree(signatures["translate"](source=source), ParallelSearch(model).predict_on_batch(source))
    agree(signatures["translate_candidates"](source=source), ParallelSearch(model, 3).predict_on_batch(source))


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
        np.testing.assert_allclose(outputs["score"], [each.score for each in expected], rtol=1e-4)


def test_an_empty_batch_has_empty_results(exported):
    ids, memory = np.zeros((0, 3), "int32"), np.zeros((0, 3, 16), "float32")
    inputs = {"score": {"source": ids, "target": ids}, "decode": {"codes": ids, "memory": memory, "mask": ids}}
    for (_, kind), signatures in exported.items():
        source = np.zeros((0,), object) if kind == "text" else ids
        for name, signature in signatures.items():
            outputs = signature(**inputs.get(name, {"source": source}))
            assert {len(output) for output in outputs.values()} == {0}


def test_ids_need_no_operation_of_tensorflow_text(exported):
    for (_, kind), signatures in exported.items():
        graph = signatures["translate"].graph.as_graph_def()
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        assert any("Sentencepiece" in node.op for node in nodes) == (kind == "text")


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
    (tmp_path / "teacher" / FILE).unlink()
    assert "vocabulary.model cannot be read" in error("teacher")
    with pytest.raises(InputError, match="max_length is 1; give at least 2"):
        text_signatures({}, vocabulary, 1)
    with pytest.raises(InputError, match="a Sequential does not translate"):
        searches(keras.Sequential())
