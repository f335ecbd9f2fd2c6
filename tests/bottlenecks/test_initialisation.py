"""Where codes start: on the data, once, and again when they have died."""

import keras
import numpy as np
import pytest
from harness import BACKEND, array, assert_same_state, call, embeddings_of, make, state
from hypothesis import given, settings
from hypothesis import strategies as st

from vq_keras.bottlenecks import VectorQuantizer, seeding
from vq_keras.bottlenecks.codebook import Codebook


def initialised(latents, num_codes, weights=None, **arguments):
    codebook = Codebook(num_codes, num_codebooks=latents.shape[1], seed=1, **arguments)
    codebook.build(latents.shape)
    codebook.initialise(latents, np.ones(len(latents), "float32") if weights is None else weights)
    return codebook


def assert_parts_fit(codebook):
    fitting = array(codebook.counts)[..., None] * array(codebook.embeddings)
    np.testing.assert_allclose(array(codebook.sums), fitting, rtol=1e-6)


@given(
    num_rows=st.integers(1, 40),
    num_codes=st.integers(2, 20),
    num_codebooks=st.integers(1, 2),
    masked=st.lists(st.integers(0, 39), max_size=20),
)
@settings(max_examples=3 if BACKEND == "jax" else 30, deadline=None)  # JAX compiles for each shape.
def test_codes_start_on_latents_of_the_first_batch(num_rows, num_codes, num_codebooks, masked):
    rng = np.random.default_rng(num_rows)
    latents = rng.normal(size=(num_rows, num_codebooks, 3)).astype("float32")
    weights = np.ones(num_rows, "float32")
    weights[[row for row in masked if row < num_rows - 1]] = 0
    latents[weights == 0] = 0
    codebook = initialised(latents, num_codes, weights)
    assert_parts_fit(codebook)
    for book in range(num_codebooks):
        rows = [tuple(row) for row in latents[weights > 0, book]]
        chosen = [tuple(row) for row in array(codebook.embeddings)[book]]
        assert set(chosen) <= set(rows)
        # Never the same twice while there are enough, and all of them where there are not.
        assert len(set(chosen)) == min(num_codes, len(rows))


def test_no_masked_latent_is_chosen_by_the_largest_random_number(monkeypatch, rng):
    latents = rng.normal(size=(2000, 1, 3)).astype("float32")
    weights = np.ones(2000, "float32")
    weights[-1000:] = 0  # As padding is.
    latents[weights == 0] = 0
    # In float32 this is 1 after 511 + uniform.
    monkeypatch.setattr(keras.random, "uniform", lambda shape, seed: keras.ops.ones(shape) * (1 - 2**-24))
    embeddings = array(initialised(latents, 512, weights).embeddings)[0]
    assert embeddings.any(-1).all()
    np.testing.assert_array_equal(embeddings[-1], latents[999, 0])


def test_kmeans_finds_clusters_and_the_next_step_does_not_jump(rng):
    centres = 20 * np.eye(8)
    sizes = np.arange(8, 24, 2)  # As large as the stratified start can hit: each cluster is a stretch of the batch.
    latents = np.concatenate([c + rng.normal(size=(n, 8)) for c, n in zip(centres, sizes, strict=True)])
    layer = VectorQuantizer(8, initializer="kmeans", epsilon=0.0, restart_threshold=0.0, decay=0.9, seed=2)
    latents = latents.astype("float32")
    before = call(layer, latents, training=True)["quantized"]
    assert_parts_fit(layer.codebook)
    # Each code is the mean of its latents, so that the step behind the initialisation left it there.
    np.testing.assert_allclose(call(layer, latents, training=True)["quantized"], before, atol=1e-4)
    counts = array(layer.codebook.counts)[0]
    assert counts.sum() == pytest.approx(len(latents), rel=1e-5)
    codes = call(layer, latents)["codes"]
    np.testing.assert_allclose(counts, np.bincount(codes, minlength=8), rtol=1e-5)
    for code in set(codes):
        np.testing.assert_allclose(embeddings_of(layer)[0, code], latents[codes == code].mean(0), atol=1e-4)


def test_kmeans_is_better_than_samples(rng):
    latents = rng.normal(size=(300, 1, 4)).astype("float32")
    errors = []
    for initializer in ("samples", "kmeans"):
        embeddings = array(initialised(latents, 16, initializer=initializer).embeddings)[0]
        errors.append(((latents - embeddings) ** 2).sum(-1).min(-1).mean())
    assert errors[1] < 0.8 * errors[0]


def test_once(rng):
    layer = VectorQuantizer(6, epsilon=0.0, restart_threshold=0.0, decay=0.99, seed=1)
    call(layer, rng.normal(size=(20, 3)).astype("float32"), training=True)
    first = embeddings_of(layer)
    call(layer, 100 + rng.normal(size=(20, 3)).astype("float32"), training=True)
    # All 20 went to one code; the others are where they were.
    assert (np.abs(embeddings_of(layer) - first).max(-1) < 1e-5).sum() == 5


def test_normal_leaves_the_data_alone(rng):
    codebook = initialised(rng.normal(size=(20, 1, 8)).astype("float32") + 7, 4096, initializer="normal")
    embeddings = array(codebook.embeddings)
    # 32,768 numbers: the standard errors are 0.0055 and 0.0039.
    assert abs(embeddings.mean()) < 0.025
    assert embeddings.std() == pytest.approx(1, abs=0.02)
    assert_parts_fit(codebook)


@pytest.mark.parametrize("num_latents", [12, 30])
def test_dead_codes_restart_on_the_batch(num_latents, rng):
    codes = rng.normal(size=(6, 3))
    counts = [1e-4, 2.0, 1e-4, 1.0, 1.0, 1e-4]
    codes[[0, 2, 5]] += 50  # They will not be hit.
    latents = rng.normal(size=(num_latents, 3)).astype("float32")
    layer = make(codes, counts=counts, decay=0.9, restart_threshold=0.1)
    without = make(codes, counts=counts, decay=0.9)
    for each in (layer, without):
        call(each, latents, training=True)

    dead, alive = [0, 2, 5], [1, 3, 4]
    for part in ("counts", "sums", "embeddings"):
        np.testing.assert_array_equal(
            array(getattr(layer.codebook, part))[0, alive], array(getattr(without.codebook, part))[0, alive]
        )
    rows = {tuple(row) for row in latents}
    chosen = [tuple(row) for row in embeddings_of(layer)[0, dead]]
    assert set(chosen) <= rows
    assert len(set(chosen)) > 1
    mean = array(without.codebook.counts).mean()
    np.testing.assert_allclose(array(layer.codebook.counts)[0, dead], mean, rtol=1e-6)
    np.testing.assert_allclose(array(layer.codebook.sums)[0, dead], mean * np.array(chosen), rtol=1e-5)


def test_a_quarter_as_many_codes_restart_as_a_batch_has_latents(rng):
    codes = rng.normal(size=(401, 3)) + 50 * (np.arange(401) > 0)[:, None]
    layer = make(codes, counts=np.where(np.arange(401) > 0, 1e-6, 1.0), decay=0.9, restart_threshold=0.1)
    latents = rng.normal(size=(1000, 3)).astype("float32")

    def restarted():
        return (embeddings_of(layer)[0, 1:, 0] < 25).sum()

    call(layer, latents, mask=np.zeros(1000, bool), training=True)
    assert restarted() == 0
    call(layer, latents, mask=np.arange(1000) < 400, training=True)
    # 400 dead codes with the probability 100 / 400 each: within four standard deviations.
    assert abs(restarted() - 100) < 4 * 8.7
    for _ in range(2):
        call(layer, latents, training=True)  # 250 of the 300, then all of the 50 that are left.
    assert restarted() == 400


def test_codes_restart_where_latents_are_far_from_all_codes(rng):
    """Three latents of 1,000 are in a cluster without a code; by chance one of 250 restarts would find it."""
    latents = np.concatenate([0.01 * rng.normal(size=(997, 2)), [[9.0, 9.0]] * 3]).astype("float32")
    rng.shuffle(latents)
    codes = 0.01 * rng.normal(size=(5, 2))
    codes[4] = -50
    layer = make(codes, counts=[1.0, 1.0, 1.0, 1.0, 1e-4], decay=0.9, restart_threshold=0.1)
    call(layer, latents, training=True)
    # With the probability (3 x 162) / (3 x 162 + 997 x 0.0002) = 0.9996.
    np.testing.assert_array_equal(embeddings_of(layer)[0, 4], [9, 9])


def test_far_latents_are_drawn_in_proportion_to_their_errors(rng):
    errors = np.array([[1.0], [0.0], [2.0], [5.0], [7.0]], "float32")
    latents = np.arange(5, dtype="float32")[:, None, None]
    weights = np.array([1, 1, 1, 1, 0], "float32")
    places = np.arange(4000)[None] % 2 == 0
    uniforms = rng.random(size=(1, 4000)).astype("float32")
    chosen = array(seeding.far(latents, weights, errors, places, uniforms))[0, places[0], 0]
    # Of 2,000 equal parts of the total, 1/8, 2/8 and 5/8; a part across a border goes to either side.
    np.testing.assert_allclose(np.bincount(chosen.astype(int), minlength=5), [250, 0, 500, 1250, 0], atol=2)
    # Without any error all that count are alike.
    chosen = array(seeding.far(latents, weights, 0 * errors, places, uniforms))[0, places[0], 0]
    np.testing.assert_allclose(np.bincount(chosen.astype(int), minlength=5), [500, 500, 500, 500, 0], atol=2)


def test_restart_under_gradient_updates(rng):
    codes = rng.normal(size=(4, 3))
    layer = make(codes, counts=[1.0, 1e-4, 1.0, 1.0], decay=0.9, restart_threshold=0.1, update="gradient")
    layer.codebook.displacement.assign(rng.normal(size=(1, 4, 3)))
    layer.codebook.anchors.assign(layer.codebook.anchors - layer.codebook.displacement)
    before, displacement = state(layer), array(layer.codebook.displacement)
    latents = 30 + rng.normal(size=(5, 3)).astype("float32")
    call(layer, latents, training=True)
    after = state(layer)
    np.testing.assert_array_equal(after["codebook/displacement"], displacement)
    alive = [0, 2, 3]
    # To the last bit: rounding must not move codes at each step.
    np.testing.assert_array_equal(after["codebook/embeddings"][0, alive], before["codebook/embeddings"][0, alive])
    assert np.abs(embeddings_of(layer)[0, 1] - latents).max(-1).min() < 1e-5


def test_the_threshold_is_a_share_of_the_mean():
    """0.2 of the mean dies at 0.25 and not at 0.15, whatever the size of the counts."""
    for scale in (1e-3, 1.0, 1e3):
        for threshold, dies in ((0.15, False), (0.25, True)):
            counts = scale * np.array([0.2, 1.2, 1.6])
            layer = make([[0.0], [1.0], [2.0]], counts=counts, decay=1 - 1e-6, restart_threshold=threshold)
            call(layer, np.full((3, 1), 1.4, "float32"), training=True)
            assert (embeddings_of(layer)[0, 0] > 1) == dies


def test_set_makes_all_parts_fit(rng):
    layer = make(rng.normal(size=(5, 3)))
    layer.codebook.set(rng.normal(size=(5, 3)), counts=[1, 2, 3, 4, 5])
    np.testing.assert_array_equal(array(layer.codebook.counts), [[1, 2, 3, 4, 5]])
    assert_parts_fit(layer.codebook)
    assert array(layer.codebook.maturity) == 1


@pytest.mark.parametrize("initializer", ["normal", "samples"])
def test_a_model_that_fit_builds_equals_one_that_was_called(initializer, rng):
    """Keras traces such a model for its shapes first, and what is assigned while it does so is lost."""
    latents = rng.normal(size=(6, 3)).astype("float32")

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.bottleneck = VectorQuantizer(
                40, initializer=initializer, epsilon=0.0, restart_threshold=0.0, seed=1, name="bottleneck"
            )

        def call(self, latents, training=None):
            return self.bottleneck(latents, training=training)["quantized"]

    states = []
    for called in (False, True):
        model = Model()
        if called:
            model(latents)
        model.compile("sgd", "mse")
        model.fit(latents, latents, batch_size=6, epochs=1, verbose=0, shuffle=False)
        states.append(state(model.bottleneck))
    assert_same_state(*states)
