"""Against Sonnet's two vector quantisers, written by the authors of oord2017, where it is installed (extra `peers`)."""

import numpy as np
import pytest
from harness import BACKEND, array, call, embeddings_of, gradients, make

if BACKEND != "tensorflow":
    pytest.skip("Sonnet runs on TensorFlow alone", allow_module_level=True)
tf = pytest.importorskip("tensorflow")
snt = pytest.importorskip("sonnet", reason="the extra `peers` is not installed")

NUM_CODES, DIM, BETA = 32, 6, 0.25


def with_codes(peer, codes):
    peer.embeddings.assign(codes.T)
    return peer


def without_bias_correction(average, value):
    """Puts an average of theirs into a state in which it is a plain one, as ours are.

    Theirs begins at zero and is divided by 1 - decay^steps, which takes the zero out again. For a large number of
    steps, which the counter is told here, that divisor is 1 to the last bit.
    """
    average._counter.assign(10_000)
    average._hidden.assign(value)
    average.average.assign(value)


def peer_gradients(peer, latents, upstream):
    """As `gradients`: of sum(upstream * quantized) or else of the loss, for latents and codes."""
    latents = tf.constant(latents)
    with tf.GradientTape() as tape:
        tape.watch([latents, peer.embeddings])
        outputs = peer(latents, is_training=True)
        value = outputs["loss"] if upstream is None else tf.reduce_sum(outputs["quantize"] * upstream)
    return tape.gradient(value, [latents, peer.embeddings])


def assert_same_outputs(outputs, theirs):
    np.testing.assert_array_equal(outputs["codes"], theirs["encoding_indices"])
    # Theirs is latents + (quantized - latents), which rounds.
    np.testing.assert_allclose(outputs["quantized"], theirs["quantize"], atol=1e-6)
    assert outputs["loss"] == pytest.approx(float(theirs["loss"]), rel=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_losses_and_gradients(training, rng):
    codes = rng.normal(size=(NUM_CODES, DIM)).astype("float32")
    latents, upstream = (rng.normal(size=(4, 25, DIM)).astype("float32") for _ in range(2))
    ours = make(codes, update="gradient", commitment_weight=BETA)
    theirs = with_codes(snt.nets.VectorQuantizer(DIM, NUM_CODES, BETA), codes)
    assert_same_outputs(call(ours, latents, training=training), theirs(latents, is_training=training))
    for given in (upstream, None):
        for_latents, (for_codes,) = gradients(ours, latents, given)
        expected_latents, expected_codes = peer_gradients(theirs, latents, given)
        np.testing.assert_allclose(for_latents, expected_latents, rtol=1e-5, atol=1e-8)
        if given is None:
            np.testing.assert_allclose(for_codes[0], array(expected_codes).T, rtol=1e-5, atol=1e-8)
        else:  # The output sends the codes none.
            assert expected_codes is None
            assert for_codes is None or not for_codes.any()


def test_fifty_steps_of_moving_averages(rng):
    codes = rng.normal(size=(NUM_CODES, DIM)).astype("float32")
    ours = make(codes, decay=0.8, epsilon=1e-5, commitment_weight=BETA)
    theirs = with_codes(snt.nets.VectorQuantizerEMA(DIM, NUM_CODES, BETA, decay=0.8, epsilon=1e-5), codes)
    without_bias_correction(theirs.ema_cluster_size, np.ones(NUM_CODES, "float32"))
    without_bias_correction(theirs.ema_dw, codes.T)
    for _ in range(50):
        latents = rng.normal(size=(4, 100, DIM)).astype("float32")
        assert_same_outputs(call(ours, latents, training=True), theirs(latents, is_training=True))
        np.testing.assert_allclose(embeddings_of(ours)[0], array(theirs.embeddings).T, atol=1e-5)
    # What the counts began as is forgotten by now, and what the codes began as.
    np.testing.assert_allclose(array(ours.codebook.counts)[0], theirs.ema_cluster_size.value, rtol=1e-5)
    assert np.abs(embeddings_of(ours)[0] - codes).max() > 0.5
    # In evaluation neither moves.
    before = embeddings_of(ours)
    assert_same_outputs(call(ours, latents, training=False), theirs(latents, is_training=False))
    np.testing.assert_array_equal(embeddings_of(ours), before)
    np.testing.assert_allclose(before[0], array(theirs.embeddings).T, atol=1e-5)


def test_gradients_under_moving_averages(rng):
    codes = rng.normal(size=(NUM_CODES, DIM)).astype("float32")
    latents, upstream = (rng.normal(size=(4, 25, DIM)).astype("float32") for _ in range(2))
    for given in (upstream, None):
        ours = make(codes, commitment_weight=BETA)
        theirs = with_codes(snt.nets.VectorQuantizerEMA(DIM, NUM_CODES, BETA, decay=0.99), codes)
        for_latents, for_codes = gradients(ours, latents, given)
        np.testing.assert_allclose(for_latents, peer_gradients(theirs, latents, given)[0], rtol=1e-5, atol=1e-8)
        assert not for_codes
