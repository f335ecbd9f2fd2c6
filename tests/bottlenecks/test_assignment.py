"""Nearest codes against brute force in float64, in one piece and in chunks."""

import keras
import numpy as np
import pytest
from harness import BACKEND, array, call, make
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from numpy_codebook import nearest, squared_distances

from vq_keras.bottlenecks import SoftEM, VectorQuantizer, assignment
from vq_keras.errors import InputError


def assert_nearest(codes, latents, embeddings, relative_margin=1e-4):
    """Every code is the nearest, but where the two best distances differ by less than float32 can tell."""
    distances = squared_distances(latents, embeddings.astype("float64"))
    best = distances.min(-1)
    chosen = np.take_along_axis(distances, codes[:, None], -1)[:, 0]
    assert (chosen - best <= relative_margin * best).all()


def test_known_neighbours_away_from_the_origin():
    codes = np.eye(3) + 9
    latents = np.array([[0, 0.9, 0], [0.8, 0, 0]], "float32")
    np.testing.assert_array_equal(array(make(codes).encode(latents)), [1, 0])
    np.testing.assert_array_equal(array(make(codes).encode(latents + 9)), [1, 0])


@pytest.mark.parametrize("kind", [VectorQuantizer, SoftEM])
def test_the_lowest_id_wins_among_equally_near_codes(kind):
    layer = make([[1.0, 0.0], [-1.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [1.0, 0.0]], kind=kind)
    latents = np.array([[0.0, 0.0], [-2.0, 0.0], [2.0, 0.0], [0.0, 3.0]], "float32")
    np.testing.assert_array_equal(array(layer.encode(latents)), [0, 1, 0, 2])
    np.testing.assert_array_equal(call(layer, latents, training=True)["codes"], [0, 1, 0, 2])


def test_far_from_the_origin(rng):
    latents = (50 + rng.normal(size=(8192, 64))).astype("float32")
    embeddings = (50 + rng.normal(size=(512, 64))).astype("float32")
    expected = nearest(latents, embeddings)
    codes = array(assignment.nearest(latents[:, None], embeddings[None]))[:, 0, 0]
    assert_nearest(codes, latents, embeddings)
    assert (codes != expected).sum() <= 2

    # Not so the plain expansion, which loses eleven bits to |x|^2 and |e|^2.
    plain = (latents**2).sum(-1, keepdims=True) - 2 * latents @ embeddings.T + (embeddings**2).sum(-1)
    assert (plain.argmin(-1) != expected).sum() > 20
    with pytest.raises(AssertionError):
        assert_nearest(plain.argmin(-1), latents, embeddings)


@given(st.data())
@settings(max_examples=4 if BACKEND == "jax" else 30, deadline=None)  # JAX compiles for each shape.
def test_chunks_of_any_size(data):
    num_rows, num_codes = data.draw(st.integers(0, 40)), data.draw(st.integers(2, 20))
    num_codebooks, dim = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    latents = rng.normal(size=(num_rows, num_codebooks, dim)).astype("float32")
    embeddings = rng.normal(size=(num_codebooks, num_codes, dim)).astype("float32")
    uniforms = rng.uniform(size=(num_rows, num_codebooks, 3)).astype("float32")

    whole = array(assignment.nearest(latents, embeddings))
    draws, codes = (array(each) for each in assignment.drawn(latents, embeddings, uniforms, 2.0))
    for book in range(num_codebooks):
        np.testing.assert_array_equal(whole[:, book, 0], nearest(latents[:, book], embeddings[book]))
    np.testing.assert_array_equal(codes, whole)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assignment, "MAX_DISTANCES", data.draw(st.integers(1, 300)))
        np.testing.assert_array_equal(array(assignment.nearest(latents, embeddings)), whole)
        chunked = [array(each) for each in assignment.drawn(latents, embeddings, uniforms, 2.0)]
    np.testing.assert_array_equal(chunked[0], draws)
    np.testing.assert_array_equal(chunked[1], whole)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="shapes inside jax.jit are always known")
@pytest.mark.parametrize("kind", [VectorQuantizer, SoftEM])
def test_a_batch_size_unknown_when_traced(kind, rng, monkeypatch):
    import tensorflow as tf

    embeddings = rng.normal(size=(2, 30, 4)).astype("float32")
    monkeypatch.setattr(assignment, "MAX_DISTANCES", 300)
    layer = make(embeddings, kind=kind)
    step = tf.function(
        lambda latents: layer(latents, training=True),
        input_signature=[tf.TensorSpec([None, None, 2, 4], "float32")],
    )
    for shape in ((3, 7), (1, 1), (0, 3), (5, 1)):
        before = array(layer.codebook.embeddings)
        latents = rng.normal(size=(*shape, 2, 4)).astype("float32")
        outputs = step(latents)
        assert outputs["quantized"].shape == latents.shape
        for book in range(2):
            flat = latents[:, :, book].reshape(-1, 4)
            np.testing.assert_array_equal(array(outputs["codes"])[:, :, book].ravel(), nearest(flat, before[book]))


@given(
    positions=st.lists(st.integers(1, 4), max_size=3),
    num_codebooks=st.integers(1, 3),
    dim=st.integers(1, 5),
    num_samples=st.integers(1, 3),
)
@settings(max_examples=3 if BACKEND == "jax" else 10, deadline=None)
def test_shapes(positions, num_codebooks, dim, num_samples):
    books = [num_codebooks] if num_codebooks > 1 else []
    shape = (2, *positions, *books, dim)
    latents = np.random.default_rng(0).normal(size=shape).astype("float32")
    layer = SoftEM(4, num_samples=num_samples, num_codebooks=num_codebooks)
    outputs = call(layer, latents, training=True)
    assert outputs["quantized"].shape == shape
    assert outputs["codes"].shape == shape[:-1]
    assert outputs["samples"].shape == (*shape[:-1], num_samples)
    symbolic = layer(keras.Input(shape[1:]))
    assert symbolic["quantized"].shape == (None, *shape[1:])
    assert symbolic["codes"].shape == (None, *shape[1:-1])
    assert symbolic["samples"].shape == (None, *shape[1:-1], None)
    for name, kind in (("quantized", "float32"), ("codes", "int32"), ("samples", "int32")):
        assert outputs[name].dtype == kind
        assert symbolic[name].dtype == kind


@pytest.mark.parametrize("kind", [VectorQuantizer, SoftEM])
def test_an_empty_batch(kind, rng):
    layer = make(rng.normal(size=(8, 3)), kind=kind, restart_threshold=0.1, epsilon=1e-5)
    layer.codebook.maturity.assign(0.0)
    layer.codebook.initializer = "samples"
    before = array(layer.codebook.embeddings)
    for training in (False, True):
        outputs = call(layer, np.zeros((0, 5, 5, 3), "float32"), training=training)
        assert outputs["quantized"].shape == (0, 5, 5, 3)
        assert outputs["codes"].shape == (0, 5, 5)
        assert outputs["loss"] == 0
    np.testing.assert_allclose(array(layer.codebook.embeddings), before, rtol=1e-6)
    assert array(layer.codebook.maturity) == 0


def test_latents_that_do_not_fit(rng):
    layer = make(rng.normal(size=(8, 3)))
    for wrong in (ops.zeros((2, 4)), keras.Input((7, 4))):
        with pytest.raises(InputError, match="4 dimensions, but this bottleneck has 3"):
            layer(wrong)
    with pytest.raises(InputError, match="4 dimensions, but this bottleneck has 3"):
        layer.encode(ops.zeros((2, 4)))
    with pytest.raises(InputError, match="do not fit 3 codebooks"):
        VectorQuantizer(8, num_codebooks=3)(ops.zeros((2, 5, 2, 4)))
