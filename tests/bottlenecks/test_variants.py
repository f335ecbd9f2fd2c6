"""Ways of the codebook beyond the two papers: rotation, unit sphere, one matrix for all codes, orthogonality."""

import keras
import numpy as np
import pytest
from harness import array, call, embeddings_of, gradients, make
from keras import ops

from vq_keras.bottlenecks import SoftEM, VectorQuantizer
from vq_keras.bottlenecks.sphere import l2_normalize
from vq_keras.errors import InputError


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_a_rotation_turns_the_gradient_with_the_latent():
    """From (2, 0) to (0, 1): a quarter turn and half the length, so (0, 1) comes back as (.5, 0)."""
    layer = make([[0.0, 1.0], [-9.0, -9.0]], rotation=True)
    latents = np.array([[2.0, 0.0]], "float32")
    np.testing.assert_array_equal(call(layer, latents)["quantized"], [[0.0, 1.0]])
    gradient, _ = gradients(layer, latents, upstream=np.array([[0.0, 1.0]], "float32"))
    np.testing.assert_allclose(gradient, [[0.5, 0.0]], atol=1e-7)


def test_a_rotation_keeps_angle_and_relative_length(rng):
    codes, latents = rng.normal(size=(12, 5)).astype("float32"), rng.normal(size=(40, 5)).astype("float32")
    layer = make(codes, rotation=True)
    upstream = rng.normal(size=(40, 5)).astype("float32")
    outputs = call(layer, latents)
    quantized = codes[outputs["codes"]]
    np.testing.assert_array_equal(outputs["quantized"], quantized)
    gradient, _ = gradients(layer, latents, upstream=upstream)
    ratio = np.linalg.norm(quantized, axis=-1) / np.linalg.norm(latents, axis=-1)
    np.testing.assert_allclose(np.linalg.norm(gradient, axis=-1), ratio * np.linalg.norm(upstream, axis=-1), rtol=1e-4)
    cosines = [(unit(a) * unit(b)).sum(-1) for a, b in ((gradient, latents), (upstream, quantized))]
    np.testing.assert_allclose(*cosines, atol=1e-5)


@pytest.mark.parametrize("latent", [[0.0, 0.0], [-1.0, 0.0], [1e-30, 0.0]])
def test_a_rotation_that_is_undefined_has_a_finite_gradient(latent):
    layer = make([[1.0, 0.0], [9.0, 9.0]], rotation=True)
    gradient, _ = gradients(layer, np.array([latent], "float32"), upstream=np.array([[0.3, 0.7]], "float32"))
    assert np.isfinite(gradient).all()


def test_cosine_codebooks_compare_directions(rng):
    codes, latents = rng.normal(size=(12, 5)), 10 * rng.normal(size=(40, 5)).astype("float32")
    layer = make(codes, cosine=True)
    outputs = call(layer, latents)
    ids = (unit(latents) @ unit(codes).T).argmax(-1)
    np.testing.assert_array_equal(outputs["codes"], ids)
    np.testing.assert_allclose(outputs["quantized"], unit(codes)[ids], rtol=1e-5)
    np.testing.assert_array_equal(outputs["codes"], array(layer.encode(latents)))
    # XLA rounds the normalisation differently in different programs.
    np.testing.assert_allclose(outputs["quantized"], array(layer.decode(ids)), rtol=3e-7)
    assert outputs["loss"] == pytest.approx(0.25 * np.square(unit(latents) - unit(codes)[ids]).mean(), rel=1e-5)
    # Back through the normalisation: what is orthogonal to the latent, over its length.
    upstream = rng.normal(size=(40, 5)).astype("float32")
    gradient, _ = gradients(layer, latents, upstream=upstream)
    direction = unit(latents)
    expected = upstream - direction * (direction * upstream).sum(-1, keepdims=True)
    np.testing.assert_allclose(gradient, expected / np.linalg.norm(latents, axis=-1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("kind", [VectorQuantizer, SoftEM])
def test_averages_on_the_sphere_are_spherical_k_means(kind, rng):
    codes, latents = rng.normal(size=(4, 3)), rng.normal(size=(60, 3)).astype("float32")
    layer = make(codes, kind, cosine=True, decay=0.0, **({} if kind is VectorQuantizer else {"temperature": 1e-9}))
    call(layer, latents, training=True)
    ids = (unit(latents) @ unit(codes).T).argmax(-1)
    expected = unit(np.stack([unit(latents)[ids == k].sum(0) for k in range(4)]))
    np.testing.assert_allclose(embeddings_of(layer)[0], expected, atol=1e-5)


def test_the_length_of_zero():
    vectors = np.array([[0.0, 0.0], [3.0, 4.0]], "float32")
    np.testing.assert_allclose(array(l2_normalize(vectors)), [[0.0, 0.0], [0.6, 0.8]], rtol=1e-6)
    layer = make([[1.0, 0.0], [0.0, 1.0]], cosine=True)
    gradient, _ = gradients(layer, vectors, upstream=np.ones((2, 2), "float32"))
    np.testing.assert_array_equal(gradient[0], [0.0, 0.0])
    assert np.isfinite(gradient).all()


def test_one_matrix_moves_all_codes(rng):
    """SimVQ: the gradient of the codebook loss for W is anchors' times that for the codes, of which two are used."""
    anchors, latents = rng.normal(size=(6, 3)), rng.normal(size=(20, 3)).astype("float32")
    latents = (anchors[:2].repeat(10, 0) + 0.1 * latents).astype("float32")
    layer = make(anchors, update="linear", commitment_weight=0.0)
    _, (gradient,) = gradients(layer, latents)
    ids = call(layer, latents)["codes"]
    assert set(ids) == {0, 1}
    for_codes = np.zeros((6, 3))
    np.add.at(for_codes, ids, 2 * (anchors[ids] - latents) / latents.size)
    np.testing.assert_allclose(gradient[0], anchors.T @ for_codes, rtol=1e-4, atol=1e-6)

    before = embeddings_of(layer)[0]
    matrix = np.eye(3) + 0.1 * rng.normal(size=(3, 3))
    layer.codebook.transform.assign(matrix[None])
    np.testing.assert_allclose(embeddings_of(layer)[0], before @ matrix, atol=1e-6)
    call(layer, latents, training=True)
    np.testing.assert_allclose(embeddings_of(layer)[0], before @ matrix, atol=1e-6)
    layer.codebook.set(anchors)
    np.testing.assert_allclose(embeddings_of(layer)[0], anchors, rtol=1e-6)


def test_codes_behind_a_matrix_restart_on_the_data(rng):
    anchors, latents = rng.normal(size=(6, 3)), rng.normal(size=(20, 3)).astype("float32")
    latents = (anchors[:2].repeat(10, 0) + 0.1 * latents).astype("float32")
    layer = make(anchors, update="linear", decay=0.0, restart_threshold=0.1)
    matrix = rng.normal(size=(3, 3))
    layer.codebook.set(anchors @ np.linalg.inv(matrix))
    layer.codebook.transform.assign(matrix[None])
    before = embeddings_of(layer)[0]
    call(layer, latents, training=True)
    after = embeddings_of(layer)[0]
    np.testing.assert_array_equal(after[:2], before[:2])
    # Rounded as the matrix is conditioned.
    distances = np.linalg.norm(after[2:, None] - latents, axis=-1)
    assert distances.min(axis=1).max() < 1e-4
    assert len(set(distances.argmin(axis=1))) > 1


def test_a_matrix_that_lost_a_direction_restarts_codes_as_near_as_it_can(rng):
    layer = make(rng.normal(size=(6, 3)), update="linear", decay=0.0, restart_threshold=0.1)
    layer.codebook.transform.assign(np.diag([1.0, 2.0, 0.0])[None])
    latents = np.repeat(embeddings_of(layer)[0, :1] + np.array([[0.0, 0.0, 5.0]], "float32"), 20, axis=0)
    call(layer, latents, training=True)
    after = embeddings_of(layer)[0]
    # Five of six codes become the latent, twenty times the same, but for its third element.
    expected = np.broadcast_to(array(latents[0]) * [1, 1, 0], (5, 3))
    np.testing.assert_allclose(np.delete(after, array(layer.encode(latents))[0], axis=0), expected, atol=1e-4)
    assert np.abs(array(layer.codebook.anchors)).max() < 100


def test_one_matrix_learns_what_the_data_do(rng):
    """When the data turn and grow, so do the codes, as well as with the matrix that made the data do so."""
    latents, turn = rng.normal(size=(512, 4)).astype("float32"), 2 * np.linalg.qr(rng.normal(size=(4, 4)))[0]
    turned = (latents @ turn).astype("float32")
    layer = VectorQuantizer(32, update="linear", seed=0)
    model = keras.Sequential([keras.Input((4,)), Quantized(layer)])
    model.compile(keras.optimizers.Adam(0.02), "mse")
    model.fit(latents, latents, batch_size=512, epochs=1, verbose=0)

    def error():
        return np.square(turned - array(layer.decode(layer.encode(turned)))).mean()

    before = error()
    model.fit(turned, turned, batch_size=512, epochs=200, verbose=0)
    learned, in_use = error(), len(np.unique(array(layer.encode(turned))))
    layer.codebook.transform.assign(turn[None])
    assert learned < 1.02 * error() < 0.9 * before
    assert in_use >= 31


class Quantized(keras.layers.Layer):
    """A bottleneck's output alone, for `Sequential`."""

    def __init__(self, bottleneck):
        super().__init__()
        self.bottleneck = bottleneck

    def build(self, shape):
        self.bottleneck.build(shape)

    def call(self, latents, training=None):
        return self.bottleneck(latents, training=training)["quantized"]


def test_orthogonality(rng):
    codes = rng.normal(size=(2, 7, 3))
    layer = make(codes, update="gradient", orthogonal_weight=10.0, commitment_weight=0.0, codebook_weight=0.0)
    expected = np.mean([np.square(unit(each) @ unit(each).T - np.eye(7)).sum() / 49 for each in codes])
    latents = rng.normal(size=(5, 2, 3)).astype("float32")
    assert call(layer, latents)["loss"] == pytest.approx(10 * expected, rel=1e-5)
    for_latents, (for_codes,) = gradients(layer, latents)
    assert not for_latents.any()
    assert np.abs(for_codes).max() > 0.01
    orthogonal = make(np.eye(3)[:2] * 5, update="gradient", orthogonal_weight=1.0)
    assert float(ops.convert_to_numpy(orthogonal.codebook.orthogonality())) == pytest.approx(0.0, abs=1e-6)
    parallel = make(np.ones((4, 3)), update="gradient", orthogonal_weight=1.0)
    assert float(ops.convert_to_numpy(parallel.codebook.orthogonality())) == pytest.approx(0.75, rel=1e-5)


def test_moving_averages_follow_no_loss():
    with pytest.raises(InputError, match="moving averages follow no loss"):
        VectorQuantizer(8, orthogonal_weight=1.0)
    with pytest.raises(InputError, match="soft EM moves its codebook"):
        SoftEM(8, update="linear")
