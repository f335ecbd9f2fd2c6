"""The latent Transformer: causality, padding, cached prediction, losses in numpy, round trip, training."""

import keras
import numpy as np
import pytest
from compiled import compiled, numpy
from id_rows import VOCABULARY, sentences
from keras import ops

from vq_keras import bottlenecks
from vq_keras.errors import InputError
from vq_keras.models.latent_transformer import LatentTransformer

tensorflow_only = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="minutes of eager operations")


def make(num_codes=8, bottleneck=None, **kwargs):
    keras.utils.set_random_seed(0)
    bottleneck = bottleneck or bottlenecks.VectorQuantizer(num_codes, initializer="normal", seed=0)
    sizes = {"num_encoder_layers": 1, "num_predictor_layers": 2, "num_decoder_layers": 1, "hidden_dim": 16}
    return LatentTransformer(
        VOCABULARY, bottleneck, num_compress_steps=2, num_heads=2, feed_forward_dim=24, dropout=0.0, **sizes, **kwargs
    )


def outputs_of(model, source, target):
    run = compiled(lambda x: model(x, training=False))
    return {name: numpy(value) for name, value in run({"source": source, "target": target}).items()}


@pytest.mark.parametrize("decoder", ["causal_shifted", "bidirectional", "ctc"])
def test_a_padded_batch_gives_what_each_sentence_gives_alone(decoder):
    model = make(decoder=decoder, attend_to_source=decoder == "bidirectional")
    source, target = sentences(9, 7, 3), sentences(12, 11, 5, seed=1)
    both, alone = outputs_of(model, source, target), outputs_of(model, source[1:, :3], target[1:, :8])
    np.testing.assert_array_equal(both["codes"][1], [*alone["codes"][0], -1])
    for name, output in alone.items():
        length = output.shape[1] if output.ndim > 1 else None
        np.testing.assert_allclose(both[name][1, ...][:length] if length else both[name][1], output[0], atol=1e-5)
    for name in ("loss", "nll_z") if decoder != "ctc" else ("nll_z",):
        assert not both[name][1, alone[name].shape[1] :].any()
    codes = compiled(lambda source, target: model.compress(target, model.encode(source)))
    np.testing.assert_array_equal(numpy(codes(source, target)), both["codes"])


def test_the_target_s_encoder_sees_the_source_if_it_is_to():
    source, target = sentences(6, *[6] * 8, seed=2), np.repeat(sentences(24, 24, seed=1), 8, axis=0)
    for attends in (False, True):
        bottleneck = bottlenecks.VectorQuantizer(512, initializer="normal", seed=0)
        codes = outputs_of(make(bottleneck=bottleneck, attend_to_source=attends), source, target)["codes"]
        assert (codes != codes[0]).any() == attends


def moves_compressor(model, term):
    """Whether a step down the sum of an output of the model moves its compressor."""
    inputs = {"source": sentences(6, 6), "target": sentences(12, 12, seed=1)}

    class OneTerm(keras.Model):
        def __init__(self):
            super().__init__()
            self.model = model

        def call(self, inputs, training=None):
            return self.model(inputs, training=training)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.sum(y_pred[term])

    trained = OneTerm()
    trained.compile(keras.optimizers.SGD(1.0))
    before = [numpy(weight) for weight in model.compressor.trainable_weights]
    trained.train_on_batch(inputs)
    moved = [np.abs(numpy(w) - b).max() > 0 for w, b in zip(model.compressor.trainable_weights, before, strict=True)]
    return any(moved)


@pytest.mark.parametrize("predictor_gradient", [True, False])
def test_the_predictor_s_loss_moves_the_compressor_only_if_it_is_to(predictor_gradient):
    assert moves_compressor(make(predictor_gradient=predictor_gradient), "nll_z") == predictor_gradient


@pytest.mark.parametrize("from_step", [0, 1])
def test_tokens_of_predicted_codes_say_nothing_to_the_compressor(from_step):
    model = make(decoder="ctc", predicted_share=1.0, predicted_from_step=from_step)
    assert moves_compressor(model, "loss") == (from_step == 1)
    assert moves_compressor(model, "nll_z")


def test_the_predictor_sees_the_codes_before_and_the_decoder_those_of_frames_before():
    """By perturbation of the codes: prior logits at j see codes before j; tokens of frame j, those up to it."""
    model = make()
    context = model.encode(sentences(6, 6))
    codes = np.array([[3, 1, 4]], "int32")

    def both(codes):
        vectors = model.bottleneck.decode(codes)
        from vq_keras.models.latent_transformer import shifted

        hidden = model.predictor(model.positions(shifted(vectors)), context["memory"], key_mask=context["mask"])
        decompressed = model.decompressor(vectors, np.array([3]))
        tokens = model.token_decoder(model.positions(shifted(decompressed)), context["memory"])
        return model.to_code_logits(hidden), model.embedding(tokens, reverse=True)

    run = compiled(both)
    priors, tokens = (numpy(each)[0] for each in run(codes))
    for j in range(3):
        other = codes.copy()
        other[0, j] = 6
        new_priors, new_tokens = (numpy(each)[0] for each in run(other))
        np.testing.assert_allclose(new_priors[: j + 1], priors[: j + 1], atol=1e-6)
        assert (np.abs(new_priors[j + 1 :] - priors[j + 1 :]).max(-1) > 1e-4).all()
        # Convolutions of width 3 reach into the frames beside; the first token sees no latent at all.
        before = max(0, 4 * (j - 1))
        np.testing.assert_allclose(new_tokens[: min(1, before + 1)], tokens[: min(1, before + 1)], atol=1e-6)
        assert np.abs(new_tokens[4 * j + 1 :] - tokens[4 * j + 1 :]).max() > 1e-4


def test_cached_prediction_equals_the_forward_pass_and_its_own_score():
    model = make()
    source = sentences(6, 6, 4)
    context = model.encode(source)
    numbers = np.array([3, 2], "int32")
    run = compiled(lambda source: model.predict_latents(model.encode(source), numbers, 3))
    codes, scores = (np.asarray(ops.convert_to_numpy(each)) for each in run(source))
    assert codes.shape == (2, 1, 3)
    assert codes[1, 0, 2] == -1

    def log_p(codes):
        from vq_keras.models.latent_transformer import shifted

        vectors = model.bottleneck.decode(codes)
        hidden = model.predictor(model.positions(shifted(vectors)), context["memory"], key_mask=context["mask"])
        return ops.log_softmax(model.to_code_logits(hidden))

    forward = numpy(compiled(log_p)(codes[:, 0]))
    for row, number in enumerate(numbers):
        np.testing.assert_array_equal(forward[row, :number].argmax(-1), codes[row, 0, :number])
        assert forward[row, :number].max(-1).sum() == pytest.approx(scores[row, 0], rel=1e-4)
    beams = compiled(lambda source: model.predict_latents(model.encode(source), numbers, 3, beams=4))
    wide = numpy(beams(source)[1])
    assert (wide[:, 0] >= scores[:, 0] - 1e-5).all()


@pytest.mark.slow
@tensorflow_only
def test_decoding_ends_at_eos_and_decodes_each_choice_like_alone():
    model = make()
    context = model.encode(sentences(6, 6, 4))
    codes = np.array([[[3, 1, 4], [2, 2, -1]], [[5, 0, -1], [7, -1, -1]]], "int32")
    decoded = {name: np.asarray(ops.convert_to_numpy(value)) for name, value in model.decode(context, codes).items()}
    assert decoded["tokens"].shape == (2, 2, 12)
    for row in range(2):
        own = {name: each[row : row + 1] for name, each in context.items()}
        for choice in range(2):
            number = (codes[row, choice] >= 0).sum()
            alone = model.decode(own, codes[row : row + 1, choice : choice + 1, :number])
            tokens = numpy(alone["tokens"])[0, 0]
            np.testing.assert_array_equal(decoded["tokens"][row, choice, : 4 * number], tokens)
            assert not decoded["tokens"][row, choice, 4 * number :].any()
            np.testing.assert_allclose(decoded["log_probs"][row, choice], numpy(alone["log_probs"])[0, 0], rtol=1e-4)
            ends = np.flatnonzero(tokens == 1)
            if len(ends):
                assert not tokens[ends[0] + 1 :].any()


def test_slots_are_read_without_blanks_and_repeats():
    """Against the slots' logits, collapsed in Python, where the table makes blanks and repeats frequent."""
    model = make(decoder="ctc")
    table = np.random.default_rng(0).normal(size=model.embedding.table.shape).astype("float32")
    table[0] *= 2.0
    model.embedding.table.assign(table)
    source, codes = sentences(6, 6, 4), np.array([[[3, 1, 4]], [[2, 5, -1]]], "int32")
    latents = np.array([3, 2], "int32")

    def both(source):
        context = model.encode(source)
        places = model.decompressor(model.bottleneck.decode(codes[:, 0]), latents)
        given = {"key_mask": context["mask"], "x_mask": np.arange(12) < 4 * latents[:, None]}
        hidden = model.token_decoder(model.positions(places), context["memory"], **given)
        return model.decode(context, codes), ops.log_softmax(model.embedding(model.slots(hidden), reverse=True))

    decoded, log_p = compiled(both)(source)
    dropped = 0
    for row, number in enumerate(latents):
        own = numpy(log_p)[row, : 8 * number]
        path = own.argmax(-1).tolist()
        expected = [token for token, before in zip(path, [0, *path], strict=False) if token not in (0, before)]
        dropped += len(path) - len(expected)
        expected = expected[: expected.index(1) + 1] if 1 in expected else expected
        found = np.asarray(decoded["tokens"])[row, 0]
        np.testing.assert_array_equal(found, [*expected, *[0] * (24 - len(expected))])
        # The sum of 24 float32 terms of two graphs.
        assert numpy(decoded["log_probs"])[row, 0] == pytest.approx(own.max(-1).sum(), rel=1e-4)
    assert dropped > 5


def test_bigrams_may_have_a_share_of_the_tokens_loss():
    model = make(decoder="ctc", bigram_share=0.5)
    source, target = sentences(6, 6, 3), sentences(8, 7, 4, seed=1)
    outputs = outputs_of(model, source, target)
    assert outputs["bigrams"].min() > 0 and (outputs["bigrams"] < [7, 4]).all()
    np.testing.assert_allclose(outputs["loss"], 0.5 * (outputs["nll"] + [7, 4] - outputs["bigrams"]), rtol=1e-5)
    figures = model.compute_metrics({"source": source, "target": target}, None, outputs)
    assert float(figures["bigram_f1"]) == pytest.approx(outputs["bigrams"].sum() / 11, rel=1e-5)
    assert LatentTransformer.from_config(model.get_config()).bigram_share == 0.5


@tensorflow_only
def test_codes_are_predicted_in_training_as_in_translation():
    """The decoder's loss of a sentence with a share of 1 is that of the codes that a search finds."""
    model = make(decoder="ctc", predicted_share=1.0)
    inputs = {"source": sentences(6, 6, 4), "target": sentences(12, 12, 7, seed=1)}
    trained = model(inputs, training=True)  # Not compiled: it draws and counts.

    def of_a_search(x):
        context = model.encode(x["source"])
        codes, _ = model.predict_latents(context, ops.array([3, 2]), 3)
        number = ops.array([3, 2])
        places = model.decompressor(model.bottleneck.decode(codes[:, 0]), number)
        given = {"key_mask": context["mask"], "x_mask": ops.arange(12) < 4 * number[:, None]}
        hidden = model.token_decoder(model.positions(places), context["memory"], **given)
        return model.get_layer("cross_entropy")(model.slots(hidden), x["target"], 8 * number)

    found = compiled(of_a_search)(inputs)
    np.testing.assert_allclose(numpy(trained["nll"]), numpy(found["nll"]), rtol=1e-4)


@pytest.mark.slow
@tensorflow_only
def test_a_refinement_reads_the_translation_before_it(tmp_path):
    model = make(decoder="bidirectional", draft_share=0.5)
    source = sentences(9, 9, 5)
    codes = np.array([[[1, 2, 3]], [[4, 5, -1]]], "int32")
    decode = compiled(lambda source, codes, n=0: model.decode(model.encode(source), codes, n)["tokens"])
    first, refined = np.asarray(decode(source, codes)), np.asarray(decode(source, codes, 1))
    assert (first != refined).any()
    # A sentence is refined like alone.
    np.testing.assert_array_equal(refined[1:, :, :8], decode(source[1:, :5], codes[1:, :, :2], 1))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    again = loaded.decode(loaded.encode(source), codes, 1)["tokens"]
    np.testing.assert_array_equal(again, refined)
    # Where it does not listen to the draft it writes the same again.
    model.draft.project.kernel.assign(0.0 * model.draft.project.kernel)
    np.testing.assert_array_equal(decode(source, codes, 3), first)
    with pytest.raises(InputError, match="has not learned to refine what it wrote: train it with a draft_share"):
        make(decoder="bidirectional").decode(model.encode(source), codes, refinements=1)


@pytest.mark.slow
@tensorflow_only
def test_the_loss_is_the_sum_of_its_parts():
    model = make()
    inputs = {"source": sentences(6, 6, 3), "target": sentences(8, 7, 4, seed=1)}
    outputs = model(inputs, training=False)
    parts = {name: numpy(value) for name, value in outputs.items()}
    latents = (parts["codes"] >= 0).sum()
    assert latents == 3
    expected = parts["loss"].sum() / 11 + parts["nll_z"].sum() / latents + parts["nll_length"].mean()
    loss = float(model.compute_loss(inputs, None, outputs))
    assert loss == pytest.approx(expected + float(sum(model.losses)), rel=1e-5)


@pytest.mark.slow
@tensorflow_only
@pytest.mark.parametrize("steps", [{"startup_steps": 10}, {"annealing_steps": 10}])
def test_before_all_comes_from_codes_the_predictor_does_not_count(steps):
    early = make(**steps)
    inputs = {"source": sentences(6, 6, 3), "target": sentences(8, 7, 4, seed=1)}
    outputs = early(inputs, training=False)
    parts = {name: numpy(value) for name, value in outputs.items()}
    # And hardly a place gets what comes from codes: 0.01 of 0.01 at the first step.
    expected = parts["loss"].sum() / 11 + parts["nll_length"].mean() + 1e-4 * float(sum(early.losses))
    assert float(early.compute_loss(inputs, None, outputs)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_it_learns_to_copy_through_its_latents(tmp_path):
    """Sentences of one word three times, from sources that do not tell it: codes have to."""
    rng = np.random.default_rng(0)
    words = rng.integers(2, 6, size=(256, 1))
    target = np.concatenate([np.repeat(words, 3, axis=1), np.ones((256, 1), int)], axis=1).astype("int32")
    source = np.full((256, 2), 1, "int32")
    source[:, 0] = 2
    model = make(bottleneck=bottlenecks.VectorQuantizer(8, seed=0))
    model.compile(keras.optimizers.Adam(3e-3))
    history = model.fit(
        {"source": source, "target": target}, batch_size=32, epochs=30, verbose=0, shuffle=False
    ).history
    # The first token sees no latent and is a guess of one in four; without latents the next two would be so, too.
    assert history["accuracy"][-1] == pytest.approx(0.8125, abs=0.04)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for ours, theirs in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(numpy(ours), numpy(theirs))
    np.testing.assert_array_equal(numpy(loaded.compress(target[:8], {})), numpy(model.compress(target[:8], {})))
    codes = numpy(model.compress(target, {})).astype(int)[:, 0]
    tokens = numpy(model.decode(model.encode(source), codes[:, None, None])["tokens"])[:, 0]
    assert (tokens == target)[:, 1:].mean() > 0.95


def test_what_does_not_fit():
    with pytest.raises(InputError, match="annealing_steps is 5, but a bidirectional decoder would see the target"):
        make(decoder="bidirectional", annealing_steps=5)
    with pytest.raises(InputError, match="bigram_share is 1, but the tokens of a bidirectional decoder have"):
        make(decoder="bidirectional", bigram_share=1)
    with pytest.raises(InputError, match="decoder is 'causal'; give one of"):
        make(decoder="causal")
    with pytest.raises(InputError, match="one code for each latent"):
        make(bottleneck=bottlenecks.get("residual", num_codes=4))


def test_the_number_of_codes_is_that_of_the_tokens_that_the_source_adds_up_to():
    model = make()
    kernel, bias = model.length_head.share.weights
    kernel.assign(ops.zeros(kernel.shape))
    bias.assign(ops.log(ops.exp(ops.full((1,), 1.5)) - 1.0))  # Its softplus is 1.5 tokens for each of the source.
    # 12, 6 and 3 tokens, padding apart, and a code stands for 4.
    found = compiled(lambda source: model.num_latents(model.encode(source)))(sentences(9, 8, 4, 2))
    np.testing.assert_array_equal(numpy(found), [3, 2, 1])
