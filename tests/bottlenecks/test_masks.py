"""Masked latents, whatever stands there, change nothing."""

import keras
import numpy as np
import pytest
from harness import array, call, embeddings_of, make, state
from hypothesis import given, settings
from hypothesis.extra import numpy as npst
from keras import ops
from numpy_codebook import NumpyCodebook, nearest

from vq_keras.bottlenecks import SoftEM, VectorQuantizer
from vq_keras.errors import InputError

GARBAGE = np.array([np.nan, np.inf, -np.inf, 1e38], "float32")


def assert_equal_but_for_rounding(first, second):
    assert first.keys() == second.keys()
    for name in first:
        # Sums of other lengths are added up in another order.
        np.testing.assert_allclose(first[name], second[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    "initializer, update, num_codebooks", [("samples", "ema", 1), ("kmeans", "ema", 2), ("samples", "gradient", 2)]
)
def test_garbage_equals_absence(initializer, update, num_codebooks, rng):
    """Three steps, so that initialisation, moving averages and restarts all have a part."""
    arguments = {"initializer": initializer, "update": update, "num_codebooks": num_codebooks, "decay": 0.7}
    masked, packed = (VectorQuantizer(5, **arguments, restart_threshold=0.5, seed=3) for _ in range(2))
    books = (num_codebooks,) if num_codebooks > 1 else ()
    mask = rng.uniform(size=(3, 7)) < 0.6
    mask[:, -2:] = False  # As padding is.
    for _ in range(3):
        latents = rng.normal(size=(3, 7, *books, 4)).astype("float32")
        latents[~mask] = GARBAGE
        with_mask = call(masked, latents, mask=mask, training=True)
        without = call(packed, latents[mask], training=True)
        for name in ("quantized", "codes", "samples"):
            np.testing.assert_allclose(with_mask[name][mask], without[name], rtol=1e-5, atol=1e-6)
        assert with_mask["loss"] == pytest.approx(without["loss"], rel=1e-5)
        assert (with_mask["codes"][~mask] == -1).all()
        assert (with_mask["samples"][~mask] == -1).all()
        assert (with_mask["quantized"][~mask] == 0).all()
    assert_equal_but_for_rounding(state(masked), state(packed))


def test_any_mask(rng):
    start = rng.normal(size=(5, 4))
    layer = make(start, decay=0.5, commitment_weight=1.0)

    @given(npst.arrays(bool, (3, 6)))
    @settings(max_examples=30, deadline=None)
    def check(mask):
        latents = rng.normal(size=(3, 6, 4)).astype("float32")
        latents[~mask] = GARBAGE
        layer.codebook.set(start)
        outputs = call(layer, latents, mask=mask, training=True)
        reference = NumpyCodebook(start, decay=0.5)
        codes = nearest(latents[mask], reference.embeddings)
        np.testing.assert_array_equal(outputs["codes"][mask], codes)
        if mask.any():
            _, error = reference.step(latents[mask], codes[:, None])
            assert outputs["loss"] == pytest.approx(error, rel=1e-5)
            np.testing.assert_allclose(array(layer.codebook.counts)[0], reference.counts, rtol=1e-5)
            np.testing.assert_allclose(array(layer.codebook.sums)[0], reference.sums, rtol=1e-5, atol=1e-6)

    check()


@pytest.mark.parametrize("kind, initializer", [(VectorQuantizer, "kmeans"), (SoftEM, "samples")])
def test_a_batch_that_is_masked_entirely(kind, initializer, rng):
    layer = kind(5, initializer=initializer, restart_threshold=0.5, epsilon=0.0)
    garbage, nothing = np.tile(GARBAGE, (2, 3, 1)), np.zeros((2, 3), bool)
    outputs = call(layer, garbage, mask=nothing, training=True)
    assert outputs["loss"] == 0
    assert array(layer.codebook.maturity) == 0

    latents = rng.normal(size=(2, 3, 4)).astype("float32")
    call(layer, latents, training=True)
    assert array(layer.codebook.maturity) > 0
    before = embeddings_of(layer)
    layer.codebook.counts.assign([[1e-3, 1, 1, 1, 1]])
    layer.codebook.sums.assign(layer.codebook.counts[..., None] * before)
    call(layer, garbage, mask=nothing, training=True)
    # The first code is dead, but there is nothing to restart it from.
    np.testing.assert_allclose(embeddings_of(layer), before, rtol=1e-6)


def test_soft_em_with_garbage(rng):
    latents = rng.normal(size=(3, 7, 4)).astype("float32")
    mask = rng.uniform(size=(3, 7)) < 0.6
    zeros = np.where(mask[..., None], latents, 0).astype("float32")
    latents[~mask] = GARBAGE
    codes = rng.normal(size=(5, 4))
    first, second = (make(codes, kind=SoftEM, restart_threshold=0.5, decay=0.99) for _ in range(2))
    for _ in range(2):
        a, b = call(first, latents, mask=mask, training=True), call(second, zeros, mask=mask, training=True)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
        assert (a["samples"][~mask] == -1).all()
        assert (a["samples"][mask] >= 0).all()
    assert_equal_but_for_rounding(state(first), state(second))
    assert array(first.codebook.counts).sum() == pytest.approx(5 * 0.99**2 + 0.01 * 1.99 * mask.sum(), rel=1e-5)


def test_kerass_own_masks_arrive_and_go_on(rng):
    """From `Masking` through the bottleneck to each of the outputs."""
    latents = rng.normal(size=(2, 5, 4)).astype("float32")
    latents[0, 3:] = 0
    mask = latents.any(-1)
    layer = make(rng.normal(size=(5, 4)))
    outputs = layer(keras.layers.Masking()(ops.convert_to_tensor(latents)))
    np.testing.assert_array_equal(array(outputs["codes"]) == -1, ~mask)
    for output in outputs.values():
        np.testing.assert_array_equal(array(output._keras_mask), mask)


def test_decoding_the_codes_of_masked_positions(rng):
    layer = make(rng.normal(size=(5, 4)))
    decoded = array(layer.decode([[0, -1], [-1, 4]]))
    np.testing.assert_array_equal(decoded[[0, 1], [0, 1]], embeddings_of(layer)[0, [0, 4]])
    assert not decoded[[0, 1], [1, 0]].any()


@pytest.mark.parametrize("shape", [(2,), (2, 5, 4), (2, 6), (3, 5)])
def test_a_mask_that_does_not_fit(shape):
    with pytest.raises(InputError, match=r"these latents need \(2, 5\)"):
        make(np.eye(4))(ops.zeros((2, 5, 4)), mask=ops.ones(shape))
