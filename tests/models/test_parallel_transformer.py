"""The non-autoregressive Transformer: padding, lengths and fertilities in numpy, losses, round trip, training."""

import keras
import numpy as np
import pytest
from compiled import compiled, numpy
from id_rows import VOCABULARY, sentences
from keras import ops

from vq_keras.errors import InputError
from vq_keras.models.parallel_transformer import LENGTHS, ParallelTransformer
from vq_keras.models.target_lengths import MAX_OFFSET
from vq_keras.search import ParallelSearch


def make(lengths, **kwargs):
    keras.utils.set_random_seed(0)
    sizes = {"num_encoder_layers": 1, "num_decoder_layers": 1, "hidden_dim": 16, "num_heads": 2} | kwargs
    return ParallelTransformer(VOCABULARY, lengths, feed_forward_dim=24, dropout=0.0, **sizes)


def with_preferences(lengths):
    """An untrained model hardly prefers a length, nor a fertility to another."""
    model = make(lengths)
    kernel, bias = model.target_lengths.to_logits.weights
    if lengths == "classifier":
        kernel.assign(8.0 * kernel)
    else:
        bias.assign([2.0, 4.0, 3.0, 1.0, *[-5.0] * 47])
    return model


def batch(lengths, source_width=9, target_width=14):
    """Two sentences, of 7 and 3 tokens, and targets of 11 and 5."""
    x = {"source": sentences(source_width, 7, 3), "target": sentences(target_width, 11, 5, seed=1)}
    if lengths == "fertility":
        x["fertility"] = np.zeros_like(x["source"])
        x["fertility"][0, :7] = [2, 0, 3, 1, 1, 3, 1]
        x["fertility"][1, :3] = [0, 4, 1]
    return x


def run(model, x):
    outputs = compiled(lambda x: model(x, training=False))(x)
    return {name: numpy(value) for name, value in outputs.items()}


@pytest.mark.parametrize("lengths", LENGTHS)
def test_a_padded_batch_gives_what_each_sentence_gives_alone(lengths):
    model = make(lengths)
    x = batch(lengths)
    both = run(model, x)
    alone = run(model, {name: rows[1:, : 5 if name == "target" else 3] for name, rows in x.items()})
    for name, output in alone.items():
        length = output.shape[1] if output.ndim > 1 else None
        np.testing.assert_allclose(both[name][1][:length] if length else both[name][1], output[0], atol=1e-5)
    for name in {"loss", "nll_fertility"} & {name for name, output in alone.items() if output.ndim > 1}:
        assert not both[name][1, alone[name].shape[1] :].any()


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def length_log_probs(model, source):
    """In numpy, from the memory on: over offsets for the classifier, over fertilities of each token for the other."""
    context = compiled(model.encode)(source)
    memory, mask = numpy(context["memory"]), numpy(context["mask"])[..., None]
    if model.lengths == "classifier":
        memory = (memory * mask).sum(1) / mask.sum(1)
    kernel, bias = (numpy(weight) for weight in model.target_lengths.to_logits.weights)
    return log_softmax(memory @ kernel + bias)


def test_lengths_and_fertilities_cost_what_they_do_in_numpy():
    x = batch("classifier")
    model = with_preferences("classifier")
    log_probs = length_log_probs(model, x["source"])
    np.testing.assert_allclose(
        run(model, x)["nll_length"], -log_probs[[0, 1], MAX_OFFSET + np.array([4, 2])], rtol=1e-4
    )
    x = batch("fertility")
    model = with_preferences("fertility")
    log_probs = length_log_probs(model, x["source"])
    expected = -np.take_along_axis(log_probs, x["fertility"][..., None], axis=-1)[..., 0] * (x["source"] > 0)
    np.testing.assert_allclose(run(model, x)["nll_fertility"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("lengths", "count"), [("classifier", 2), ("fertility", 10)])
def test_the_loss_is_the_sum_of_its_parts(lengths, count):
    model, x = make(lengths), batch(lengths)
    outputs = compiled(lambda x: model(x, training=False))(x)
    parts = {name: numpy(value) for name, value in outputs.items()}
    log_p = log_softmax(parts["logits"])
    nll = -np.take_along_axis(log_p, x["target"][..., None], axis=-1)[..., 0] * (x["target"] > 0)
    nll_lengths = parts["nll_length" if lengths == "classifier" else "nll_fertility"].sum() / count
    assert float(model.compute_loss(x, None, outputs)) == pytest.approx(nll.sum() / 16 + nll_lengths, rel=1e-5)
    figures = {name: float(value) for name, value in model.compute_metrics(x, None, outputs).items()}
    right = ((log_p.argmax(-1) == x["target"]) & (x["target"] > 0)).sum()
    assert figures.pop("accuracy") == pytest.approx(right / 16)
    assert figures.pop("nll") == pytest.approx(nll.sum() / 16, rel=1e-5)
    assert list(figures.values()) == [pytest.approx(nll_lengths, rel=1e-5)]


def test_the_likeliest_lengths_are_proposed():
    """Sources of 7 and 3 tokens: the latter has translations of 1 to 14."""
    model, source = with_preferences("classifier"), sentences(9, 7, 3)
    copies, scores = compiled(lambda x: model.propose(model.encode(x), 20))(source)
    assert copies.shape == (2, 20, 26)
    found = (np.asarray(copies) > 0).sum(-1)
    log_probs = length_log_probs(model, source)
    for row, n in enumerate((7, 3)):
        possible = np.arange(1, 2 * n + 9)
        of_each = log_probs[row, MAX_OFFSET + possible - n]
        best = np.argsort(-of_each)[:20]
        np.testing.assert_array_equal(found[row, : len(best)], possible[best])
        np.testing.assert_allclose(numpy(scores)[row, : len(best)], of_each[best], rtol=1e-4)
    assert (numpy(scores)[1, 14:] == -np.inf).all()


def test_the_likeliest_fertilities_and_draws_are_proposed():
    model, source = with_preferences("fertility"), sentences(9, 7, 3)
    propose = compiled(lambda x: model.propose(model.encode(x), 6, seed=3))
    copies, scores = (np.asarray(each) for each in propose(source))
    assert copies.shape == (2, 6, 26)
    log_probs = length_log_probs(model, source)
    uniforms = np.random.default_rng(3).random((256, 5)).astype("float32")
    for row, n in enumerate((7, 3)):
        ends = np.cumsum(np.exp(log_probs[row, :n]), axis=-1)
        for candidate in range(6):
            if candidate:
                chosen = (ends <= uniforms[:n, candidate - 1 : candidate]).sum(-1)
            else:
                chosen = log_probs[row, :n].argmax(-1)
            chosen[n - 1] = max(chosen[n - 1], 1)  # EOS.
            expected = np.repeat(source[row, :n], chosen)[: 2 * n + 8]
            np.testing.assert_array_equal(copies[row, candidate], [*expected, *[0] * (26 - len(expected))])
            assert scores[row, candidate] == pytest.approx(log_probs[row, np.arange(n), chosen].sum(), rel=1e-4)
        assert len(np.unique(copies[row], axis=0)) >= 3
    # A sentence has the same candidates alone.
    alone, _ = propose(source[1:, :3])
    np.testing.assert_array_equal(np.asarray(alone)[0], copies[1, :, :14])


@pytest.mark.parametrize("lengths", ["classifier", "fertility"])
def test_decoding_is_the_forward_pass_without_a_target(lengths):
    model = make(lengths)
    model.embedding.table.assign(3.0 * model.embedding.table)
    x = batch(lengths)
    logits = run(model, x)["logits"]
    # The copies of the forward pass, as the second of three candidates.
    given = model.target_lengths(model.encode(x["source"])["memory"], *x.values())["copies"]
    copies = np.zeros((2, 3, 14), "int32")
    copies[:, 1] = np.asarray(given)
    copies[:, 0, 0] = copies[:, 2, 0] = 1
    decoded = compiled(lambda source, copies: model.decode(model.encode(source), copies))(x["source"], copies)
    for row, length in enumerate((11, 5)):
        tokens = logits[row, :length].argmax(-1)
        kept = tokens[: [*np.flatnonzero(tokens == 1), length][0] + 1]
        expected = [*kept, *[0] * (14 - len(kept))]
        np.testing.assert_array_equal(np.asarray(decoded["tokens"])[row, 1], expected)
        score = log_softmax(logits[row, : len(kept)]).max(-1).sum()
        assert numpy(decoded["log_probs"])[row, 1] == pytest.approx(score, rel=1e-4, abs=1e-5)


def slot_logits(model, source):
    """In numpy, from the decoder's states on, at the places of a source stretched to twice its length and 8."""
    stretched = np.zeros((2, 2 * source.shape[1] + 8), "int32")
    for row, n in enumerate((7, 3)):
        places = np.arange(2 * n + 8)
        stretched[row, : 2 * n + 8] = source[row, np.floor(places * (n - 1) / (2 * n + 7) + 0.5).astype(int)]

    def states(source, stretched):
        context = model.encode(source)
        x = model.positions(model.embedding(stretched))
        masks = {"key_mask": context["mask"], "x_mask": stretched > 0}
        return model.token_decoder(x, context["memory"], **masks, training=False)

    return numpy(compiled(states)(source, stretched)) @ numpy(model.embedding.table).T


def test_without_lengths_the_loss_is_keras_s_own_over_the_stretched_source():
    """But a target of 12 equal tokens, which 14 places cannot hold with the blanks between, costs nothing."""
    model, x = make("ctc"), batch("ctc", target_width=13)
    logits = slot_logits(model, x["source"])
    lengths, places = np.array([11, 5], "int32"), np.array([22, 14], "int32")
    loss = compiled(lambda *inputs: ops.ctc_loss(*inputs, mask_index=0))
    expected = numpy(loss(x["target"], logits.astype("float32"), lengths, places))
    outputs = run(model, x)
    assert set(outputs) == {"loss", "nll"}
    np.testing.assert_allclose(outputs["nll"], expected, rtol=1e-4)
    assert float(model.compute_loss(x, None, outputs)) == pytest.approx(expected.sum() / 16, rel=1e-4)
    figures = {name: float(value) for name, value in model.compute_metrics(x, None, outputs).items()}
    assert figures == {"nll": pytest.approx(expected.sum() / 16, rel=1e-4)}
    impossible = np.where(np.arange(13) < 12, 7, 0).astype("int32")
    x["target"][1] = impossible
    np.testing.assert_allclose(run(model, x)["loss"], [expected[0], 0.0], rtol=1e-4)


def test_bigrams_may_have_a_share_of_its_loss():
    model, x = make("ctc", bigram_share=1.0), batch("ctc", target_width=13)
    outputs = run(model, x)
    np.testing.assert_allclose(outputs["loss"], [11, 5] - outputs["bigrams"], rtol=1e-5)
    assert float(model.compute_loss(x, None, outputs)) == pytest.approx(1 - outputs["bigrams"].sum() / 16, rel=1e-5)
    figures = {name: float(value) for name, value in model.compute_metrics(x, None, outputs).items()}
    expected = {"nll": outputs["nll"].sum() / 16, "bigram_f1": outputs["bigrams"].sum() / 16}
    assert figures == {name: pytest.approx(value, rel=1e-5) for name, value in expected.items()}
    assert 0 < figures["bigram_f1"] < 1
    assert ParallelTransformer.from_config(model.get_config()).bigram_share == 1.0


def test_without_lengths_the_likeliest_alignment_is_read():
    model, source = make("ctc"), sentences(9, 7, 3)
    model.embedding.table.assign(3.0 * model.embedding.table)
    found = ParallelSearch(model).predict_on_batch(source)
    tokens, scores = np.asarray(found["tokens"]), np.asarray(found["scores"])
    logits = slot_logits(model, source)
    for row, n in enumerate((7, 3)):
        best = logits[row, : 2 * n + 8].argmax(-1)
        labels = [label for label, before in zip(best, (0, *best), strict=False) if label not in (0, before)]
        expected = labels[: labels.index(1) + 1] if 1 in labels else labels
        np.testing.assert_array_equal(tokens[row], [*expected, *[0] * (26 - len(expected))])
        score = log_softmax(logits[row, : 2 * n + 8]).max(-1).sum()
        assert scores[row] == pytest.approx(score, rel=1e-4)


def task(lengths):
    """Sentences to copy; with fertilities, odd words come twice and words that can be divided by four not at all."""
    rng = np.random.default_rng(0)
    x = {"source": sentences(8, *rng.integers(2, 8, 512))}
    if lengths != "fertility":
        return {**x, "target": x["source"]}
    times = np.where(x["source"] % 2 == 1, 2, np.where(x["source"] % 4 == 0, 0, 1))
    x["fertility"] = np.where(x["source"] > 1, times, x["source"]).astype("int32")
    x["target"] = np.zeros((512, 14), "int32")
    for target, source, fertility in zip(x["target"], x["source"], x["fertility"], strict=True):
        target[: fertility.sum()] = np.repeat(source, fertility)
    return x


# Alignments are to be found first, and between equal words a blank.
EPOCHS = {"classifier": 8, "fertility": 8, "ctc": 24}
COPIED = {"classifier": 0.9, "fertility": 0.9, "ctc": 0.75}


@pytest.mark.slow
@pytest.mark.parametrize("lengths", LENGTHS)
def test_it_learns_to_copy(lengths, tmp_path):
    x = task(lengths)
    model = make(lengths, hidden_dim=32)
    model.compile(keras.optimizers.Adam(5e-3))
    history = model.fit(x, batch_size=32, epochs=EPOCHS[lengths], verbose=0).history
    if lengths != "ctc":
        assert history["accuracy"][-1] > 0.97
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config()
    for candidates in (1, 5) if lengths != "ctc" else (1,):
        expected, found = (ParallelSearch(each, candidates).predict_on_batch(x["source"]) for each in (model, loaded))
        np.testing.assert_array_equal(expected["tokens"], found["tokens"])
        tokens = found["tokens"][:, : x["target"].shape[1]]
        assert (tokens == x["target"]).all(axis=1).mean() > COPIED[lengths]


def test_what_does_not_fit():
    with pytest.raises(InputError, match="lengths is 'oracle'; give one of classifier, fertility, ctc"):
        make("oracle")
    with pytest.raises(InputError, match="candidates is 2; a model that predicts no lengths has 1"):
        ParallelSearch(make("ctc"), 2)
    with pytest.raises(InputError, match="bigram_share is 1, but with lengths 'fertility' each token has its place"):
        make("fertility", bigram_share=1)
    with pytest.raises(InputError, match="num_heads is 3, which does not divide"):
        make("classifier", num_heads=3)
