"""What clients should not send: documented results, the same in any company, or a refusal in words.

VQ_KERAS_RANDOM_REQUESTS=2000 sends as many requests of random bytes, other ones each time; some minutes.
"""

import os

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies as st
from translators import MAX_LENGTH

pytestmark = [
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow writes SavedModels"),
    pytest.mark.slow,
    pytest.mark.xdist_group("translators"),
]
pytest.importorskip("tensorflow_text", reason="the tokenizer of exported graphs")
pytest.importorskip("tensorflow_serving", reason="the format of warm-up requests")


def translate(exported, sentences, name="latent", signature="translate"):
    outputs = exported[name, "text"][signature](source=np.array(sentences, object))
    return [
        tuple(row) for row in zip(*(outputs[k].numpy() for k in ("translation", "score", "truncated")), strict=True)
    ]


def same(one, other):
    assert [(text, cut) for text, _, cut in one] == [(text, cut) for text, _, cut in other]
    # Other rows beside it change the order of sums in float32.
    np.testing.assert_allclose([score for _, score, _ in one], [score for _, score, _ in other], rtol=1e-5, atol=1e-5)


RANDOM_REQUESTS = os.environ.get("VQ_KERAS_RANDOM_REQUESTS")
HOSTILE = [
    b"",
    b" \t\n\r\v\f",
    b"two books",
    b" " * 10_000_000,
    b"old house " * 1_000_000,
    b"\xff" * 1_000_000,
    b"two\xc3",
    "日本語".encode()[:-1] * 3,
    b"\xed\xa0\x80",
    bytes(range(32)) + b"\x7f",
    "\u202e\u200b\ufeff\u2581".encode(),
    b"word " * 5000,
    b"x" * 5000,
]


@pytest.mark.parametrize("name", ["teacher", "latent"])
@pytest.mark.parametrize("number", [0, 1])
def test_each_of_a_mixed_batch_gets_what_it_gets_alone(exported, name, number):
    signature = sorted(set(exported[name, "text"]) - {"serving_default"})[number]
    together = translate(exported, HOSTILE, name, signature)
    same(together, [translate(exported, [each], name, signature)[0] for each in HOSTILE])
    assert together[0] == together[1] == together[3] == (b"", 0.0, False)
    cut = [truncated for _, _, truncated in together]
    assert cut == [False] * 4 + [True, True, False, True, False, True, False, True, True]
    for text, score, _ in together:
        text.decode()
        assert np.isfinite(score)


def test_only_the_beginning_of_a_long_text_counts(exported):
    begun = b"old house " * MAX_LENGTH
    found = translate(exported, [begun, begun + b"\xff", begun * 1000, begun + b" " * 10_000])
    same(found, found[:1] * 4)


def test_bytes_that_are_no_utf8_are_read_as_replacement_characters(exported):
    wrong, replaced = [b"two\xc3", b"\xff", b"\xed\xa0\x80"], ["two\ufffd", "\ufffd", "\ufffd" * 3]
    same(translate(exported, wrong), translate(exported, [each.encode() for each in replaced]))


def test_ten_thousand_sentences_are_translated_in_parts(exported):
    few = [b"two books", b"", b"the old house", b"the house " * 9]
    alone = translate(exported, few)
    many = translate(exported, few * 2500)
    same(many[:4] + many[-4:], alone * 2)
    assert [text for text, _, _ in many] == [text for text, _, _ in alone] * 2500


@hypothesis.settings(deadline=None, max_examples=int(RANDOM_REQUESTS or 15), derandomize=not RANDOM_REQUESTS)
@hypothesis.given(st.lists(st.binary(max_size=80), max_size=5))
def test_any_bytes_have_a_translation_of_their_own(exported, sentences):
    together = translate(exported, sentences)
    assert len(together) == len(sentences)
    for sentence, found in zip(sentences, together, strict=True):
        found[0].decode()
        same([found], translate(exported, [sentence]))
        if not sentence.strip(b" \t\n\r\v\f"):
            assert found == (b"", 0.0, False)


def test_sources_without_columns_are_empty_sentences(exported):
    none = np.zeros((2, 0), "int32")
    for name, signature in (("teacher", "translate_beam"), ("latent", "translate_candidates")):
        outputs = exported[name, "ids"][signature](source_ids=none)
        assert not np.any(outputs["target_ids"]) and outputs["score"].numpy().tolist() == [0.0, 0.0]
    assert exported["latent", "ids"]["encode"](source_ids=none)["mask"].numpy().tolist() == [[1], [1]]


def test_ids_that_a_server_filled_up_translate_as_before(exported):
    source = np.array([[9, 30, 1, 0, 0], [8, 40, 41, 42, 1]], "int32")
    filled = np.array([[9, 30, 1, 9, 9, 9, 9], [8, 40, 41, 42, 1, 8, 8]], "int32")
    for name in ("teacher", "latent"):
        signature = exported[name, "ids"]["translate"]
        expected, outputs = signature(source_ids=source), signature(source_ids=filled)
        for one, other in zip(outputs["target_ids"].numpy(), expected["target_ids"].numpy(), strict=True):
            np.testing.assert_array_equal(one[one > 0], other[other > 0])
        np.testing.assert_allclose(outputs["score"], expected["score"], rtol=1e-5)


def test_five_thousand_ids_are_cut(exported):
    source = np.full((1, 5000), 9, "int32")
    short = np.array([[9] * (MAX_LENGTH - 1) + [1]], "int32")
    for name in ("teacher", "latent"):
        long, cut = (exported[name, "ids"]["translate"](source_ids=ids) for ids in (source, short))
        np.testing.assert_array_equal(long["target_ids"], cut["target_ids"])
        assert (bool(long["truncated"]), bool(cut["truncated"])) == (True, False)


@pytest.mark.parametrize(
    ("name", "signature", "inputs", "message"),
    [
        ("latent", "translate", {"source_ids": [[290, 1]]}, "source_ids are not all within the vocabulary, 0 to 289"),
        ("teacher", "encode", {"source_ids": [[-1, 1]]}, "source_ids are not all within the vocabulary"),
        ("teacher", "score", {"source_ids": [[5, 1]], "target_ids": [[5, 1]] * 2}, "target_ids differ in rows"),
        ("latent", "predict_latents", {"memory": (1, 0), "mask": np.ones((1, 0))}, "memory has a number"),
        ("latent", "decode", {"memory": (1, 3), "mask": [[1] * 3], "codes": [[5]]}, "codes are not all within"),
        (
            "latent",
            "decode",
            {"memory": (2, 3), "mask": [[1] * 3] * 2, "codes": [[0]]},
            "memory and codes differ in rows",
        ),
    ],
)
def test_what_has_no_meaning_is_refused(exported, name, signature, inputs, message):
    import tensorflow as tf

    inputs = {key: np.array(value, "int32") for key, value in inputs.items()}
    if "memory" in inputs:
        inputs["memory"] = np.zeros((*inputs["memory"], 16), "float32")
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        exported[name, "ids"][signature](**inputs)
