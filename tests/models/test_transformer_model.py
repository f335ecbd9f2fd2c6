"""The Transformer: its loss and metrics in numpy, causality, padding, steps, round trips, training, export."""

import itertools

import id_rows
import keras
import numpy as np
import pytest
from compiled import compiled, numpy
from id_rows import VOCABULARY
from keras import ops

from vq_keras import generation, saved_model
from vq_keras.errors import InputError
from vq_keras.layers import TiedEmbedding
from vq_keras.models.sizes import SIZES, sizes_of
from vq_keras.models.transformer import TokenCrossEntropy, Transformer

needs_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="exports")


def make(**kwargs):
    sizes = {"num_encoder_layers": 1, "num_decoder_layers": 2, "hidden_dim": 16, "num_heads": 2, "feed_forward_dim": 24}
    return Transformer(**{"vocabulary_size": VOCABULARY, **sizes, "dropout": 0.0, **kwargs})


def sentences(*lengths, seed=0):
    """One of each length, padded to the longest."""
    return id_rows.sentences(max(lengths), *lengths, seed=seed)


def batch():
    return {"source": sentences(7, 4, 1), "target": sentences(3, 6, 5, seed=1)}


def outputs_of(model, inputs):
    return {name: numpy(value) for name, value in compiled(lambda x: model(x, training=False))(inputs).items()}


def log_softmax(logits):
    logits = logits.astype("float64")
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_token_cross_entropy_equals_numpy_with_one_hot_labels(smoothing):
    embedding = TiedEmbedding(VOCABULARY, 8)
    embedding.build()
    rng = np.random.default_rng(0)
    embedding.table.assign(rng.normal(size=(VOCABULARY, 8)))
    hidden, target = rng.normal(size=(3, 6, 8)).astype("float32"), batch()["target"]
    terms = compiled(TokenCrossEntropy(embedding, smoothing))(hidden, target)

    log_p = log_softmax(hidden @ numpy(embedding.table).T)
    one_hot = np.eye(VOCABULARY)[target]
    labels = (1 - smoothing) * one_hot + smoothing / VOCABULARY
    present = target != 0
    # Logits up to ten in float32.
    np.testing.assert_allclose(numpy(terms["loss"]), -(labels * log_p).sum(-1) * present, atol=1e-5)
    np.testing.assert_allclose(numpy(terms["nll"]), -(one_hot * log_p).sum(-1) * present, atol=1e-5)
    np.testing.assert_array_equal(numpy(terms["correct"]), (log_p.argmax(-1) == target) & present)
    assert {standard(term) for term in terms.values()} == {"float32"}


def standard(tensor):
    return keras.backend.standardize_dtype(tensor.dtype)


def test_gradient_of_the_loss_is_softmax_minus_smoothed_labels():
    """With respect to the logits; seen through the hidden vectors, whose products they are."""
    embedding, smoothing = TiedEmbedding(VOCABULARY, 8), 0.1
    embedding.build()
    rng = np.random.default_rng(0)
    hidden, target = rng.normal(size=(2, 4, 8)).astype("float32"), sentences(4, 4)
    layer = TokenCrossEntropy(embedding, smoothing)

    def loss(hidden):
        return ops.sum(layer(hidden, target)["loss"])

    if keras.backend.backend() == "jax":
        import jax

        gradient = numpy(jax.jit(jax.grad(loss))(hidden))
    else:
        import tensorflow as tf

        hidden = tf.constant(hidden)
        with tf.GradientTape() as tape:
            tape.watch(hidden)
            value = loss(hidden)
        gradient = numpy(tape.gradient(value, hidden))
    table = numpy(embedding.table)
    labels = (1 - smoothing) * np.eye(VOCABULARY)[target] + smoothing / VOCABULARY
    np.testing.assert_allclose(gradient, (np.exp(log_softmax(numpy(hidden) @ table.T)) - labels) @ table, atol=1e-6)


@needs_tensorflow
def test_no_labels_of_the_size_of_the_logits():
    import tensorflow as tf

    model = make(num_decoder_layers=1, vocabulary_size=1000)

    @tf.function
    def gradients(inputs):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x=inputs, y_pred=model(inputs, training=True))
        return tape.gradient(loss, model.trainable_weights)

    specs = {name: tf.TensorSpec((3, 50), tf.int32) for name in ("source", "target")}
    operations = gradients.get_concrete_function(specs).graph.get_operations()
    large = [op.type for op in operations for t in op.outputs if (t.shape.num_elements() or 0) >= 3 * 50 * 1000]
    # What there is of this size comes from the softmax: nothing that is made of ids, forwards or backwards.
    assert {"Exp", "MatMul"} <= set(large)
    assert not {"OneHot", "ScatterNd", "GatherNd", "Fill", "ZerosLike"} & set(large), large


def test_probabilities_of_all_targets_sum_to_one():
    model = make(vocabulary_size=4)
    target = np.array(list(itertools.product(range(4), repeat=3)), "int32")
    logits = outputs_of(model, {"source": np.full((64, 2), 3, "int32"), "target": target})["logits"]
    log_p = np.take_along_axis(log_softmax(logits), target[..., None], axis=-1).sum((1, 2))
    # 64 products of float32 probabilities.
    assert np.exp(log_p).sum() == pytest.approx(1.0, abs=1e-5)
    assert log_p.std() > 0.1  # and they are not all the same


def test_logits_depend_on_exactly_the_tokens_before_and_the_whole_source():
    model, length = make(), 6
    inputs = {"source": sentences(5), "target": sentences(length)}
    for name in inputs:
        rows = np.repeat(inputs[name], inputs[name].size + 1, axis=0)
        positions = np.arange(inputs[name].size)
        rows[positions, positions] = (rows[positions, positions] - 1) % (VOCABULARY - 2) + 2  # Row j: token j changed.
        other = "target" if name == "source" else "source"
        logits = outputs_of(model, {name: rows, other: np.repeat(inputs[other], len(rows), axis=0)})["logits"]
        change = np.abs(logits[:-1] - logits[-1]).max(-1).T  # (t, j)
        depends = np.tri(length, length, -1, bool) if name == "target" else np.ones_like(change, bool)
        # Rows of a batch may be rounded differently; a changed token moves logits of order one by more than 1e-4.
        assert change[~depends].max(initial=0) < 3e-6
        assert change[depends].min() > 1e-4


def test_a_padded_batch_gives_what_each_sentence_gives_alone():
    model, inputs = make(), batch()
    together = outputs_of(model, inputs)
    for row, (n, m) in enumerate([(7, 3), (4, 6), (1, 5)]):
        alone = outputs_of(model, {"source": inputs["source"][[row], :n], "target": inputs["target"][[row], :m]})
        for name, value in alone.items():
            np.testing.assert_allclose(together[name][row, :m], value[0], atol=1e-5, err_msg=name)
        for name in ("loss", "nll", "correct"):
            assert not together[name][row, m:].any()


def test_score_is_the_log_probability_of_a_sentence():
    model, inputs = make(), batch()
    log_p = np.take_along_axis(log_softmax(outputs_of(model, inputs)["logits"]), inputs["target"][..., None], axis=-1)
    expected = (log_p[..., 0] * (inputs["target"] != 0)).sum(-1)
    score = compiled(lambda source, target: model.score(model.encode(source), target))
    np.testing.assert_allclose(numpy(score(**inputs)), expected, rtol=1e-5)


def test_several_targets_of_a_sentence_are_read_as_one_of_many():
    model, inputs = make(), batch()
    rows = {name: np.repeat(value, 3, axis=0) for name, value in inputs.items()}
    rows["target"] = rows["target"][:, ::-1].copy()
    read = compiled(lambda source, target: model.read(model.encode(source), target)["logits"])
    together, alone = numpy(read(inputs["source"], rows["target"])), numpy(read(**rows))
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("beams", [1, 3])
def test_steps_equal_the_teacher_forced_pass(beams):
    model, source = make(), batch()["source"]
    rows = 3 * beams
    target = np.random.default_rng(2).integers(0, VOCABULARY, (rows, 6)).astype("int32")
    expected = outputs_of(model, {"source": source.repeat(beams, axis=0), "target": target})["logits"]
    context, cache, step = compiled(model.encode)(source), model.init_cache(rows, 6), compiled(model.step)
    for t in range(6):
        # What stands in place of a token before the first must not matter.
        previous = target[:, t - 1] if t else np.arange(rows, dtype="int32")
        logits, cache = step(previous, np.int32(t), cache, context)
        assert standard(logits) == "float32"
        np.testing.assert_allclose(numpy(logits), expected[:, t], atol=1e-5)


def test_greedy_decoding_in_a_loop_takes_the_most_likely_tokens():
    model, source = make(), batch()["source"]

    def greedy(source):
        context, rows = model.encode(source), ops.shape(source)[0]
        step = lambda previous, t, cache: model.step(previous, t, cache, context)  # noqa: E731
        return generation.greedy(step, model.init_cache(rows, 8), 8, ops.zeros((rows,), "int32"))[0]

    tokens = numpy(compiled(greedy)(source)).astype("int32")
    logits = outputs_of(model, {"source": source, "target": tokens})["logits"]
    np.testing.assert_array_equal(tokens, logits.argmax(-1))


def test_bfloat16_policy_keeps_logits_and_terms_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = make()
    keras.config.set_dtype_policy("float32")
    exact = make()
    exact.set_weights(model.get_weights())
    inputs = batch()
    raw = model(inputs)
    assert {standard(value) for value in raw.values()} == {"float32"}
    # Three layers of bfloat16 (2**-8 relative) on logits of order one.
    np.testing.assert_allclose(numpy(raw["logits"]), outputs_of(exact, inputs)["logits"], atol=0.15)
    cache = model.init_cache(3, 6)
    assert standard(cache[0]["keys"]) == "bfloat16"
    logits, _ = compiled(model.step)(inputs["target"][:, 0], np.int32(0), cache, model.encode(inputs["source"]))
    np.testing.assert_allclose(numpy(logits), numpy(raw["logits"])[:, 0], atol=0.1)


def test_metrics_are_means_over_tokens_whatever_batch_they_came_in():
    model = make()
    model.compile()
    inputs = {name: np.concatenate([value, value[::-1]]) for name, value in batch().items()}
    inputs["target"][3] = sentences(6, seed=5)
    terms = outputs_of(model, inputs)
    tokens = (inputs["target"] != 0).sum()
    result = model.evaluate(inputs, batch_size=4, verbose=0, return_dict=True)
    assert set(result) == {"loss", "nll", "accuracy"}
    assert result["nll"] == pytest.approx(terms["nll"].sum() / tokens, rel=1e-5)
    assert result["accuracy"] == pytest.approx(terms["correct"].sum() / tokens, rel=1e-5)
    loss = model.compute_loss(x=inputs, y_pred=terms)
    assert float(loss) == pytest.approx(terms["loss"].sum() / tokens, rel=1e-5)


def test_keras_file_round_trip_is_bit_equal(tmp_path):
    model, inputs = make(num_decoder_layers=1, dropout=0.2), batch()
    model.compile(keras.optimizers.Adam(1e-2))
    model.fit(inputs, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again) is Transformer
    assert again.get_config() == model.get_config()
    for mine, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)
    np.testing.assert_array_equal(outputs_of(again, inputs)["logits"], outputs_of(model, inputs)["logits"])


def test_fit_learns_to_copy():
    model = make(label_smoothing=0.0, num_decoder_layers=1, hidden_dim=32)
    model.compile(keras.optimizers.Adam(1e-2))
    rows = sentences(*np.random.default_rng(0).integers(2, 5, 256))
    history = model.fit({"source": rows, "target": rows}, batch_size=64, epochs=25, verbose=0).history
    # The loss is a mean over batches, nll one over tokens.
    np.testing.assert_allclose(history["loss"], history["nll"], rtol=0.05)
    assert history["nll"][0] > 1.5
    # Seen with six seeds: 0.03 to 0.1, and 0.96 and more.
    assert history["nll"][-1] < 0.3
    assert history["accuracy"][-1] > 0.9


@needs_tensorflow
@pytest.mark.slow
def test_a_greedy_translation_is_exported_as_a_server_runs_it(tmp_path):
    import tensorflow as tf

    model = make()

    def translate(source):
        context, rows = model.encode(source), ops.shape(source)[0]
        step = lambda previous, t, cache: model.step(previous, t, cache, context)  # noqa: E731
        return {"target": generation.greedy(step, model.init_cache(rows, 8), 8, ops.zeros((rows,), "int32"))[0]}

    signature = saved_model.Signature(translate, {"source": ((None, None), "int32")})
    # It is refused where TF Serving, without XLA, would refuse it.
    path = saved_model.write(tmp_path, {"translate": signature})
    served = tf.saved_model.load(str(path)).signatures["translate"]
    source = batch()["source"]
    np.testing.assert_array_equal(served(source=tf.constant(source))["target"], compiled(translate)(source)["target"])


def test_sizes_by_name():
    for name, sizes in SIZES["Transformer"].items():
        assert sizes_of("Transformer", name) == sizes
    # Vaswani et al. 2017, table 3: 65 million weights with a vocabulary of 37,000, here without biases in attention.
    weights = make(**{**sizes_of("Transformer", "base"), "vocabulary_size": 1000}).count_params() + 36_000 * 512
    assert 62e6 < weights < 66e6
    with pytest.raises(InputError, match="known ones are base, shallow_decoder, small"):
        sizes_of("Transformer", "large")


@pytest.mark.parametrize(
    "wrong",
    [
        {"vocabulary_size": 2},
        {"num_encoder_layers": 0},
        {"num_decoder_layers": 0},
        {"hidden_dim": 15},
        {"hidden_dim": 15, "num_heads": 3},
        {"hidden_dim": 16, "num_heads": 0},
        {"feed_forward_dim": 0},
        {"dropout": 1.0},
        {"label_smoothing": 1.0},
        {"label_smoothing": -0.1},
    ],
)
def test_bad_arguments(wrong):
    name = next(iter(wrong)).replace("num_encoder_layers", "num_layers of the encoder")
    with pytest.raises(InputError, match=name.replace("num_decoder_layers", "num_layers of the decoder")):
        make(**wrong)
