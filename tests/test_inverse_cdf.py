"""Draws by inverse CDF against the probabilities, numpy's search, and the corners of float32."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from vq_keras import inverse_cdf

LARGEST = np.float32(1 - 2**-24)
JAX = keras.backend.backend() == "jax"
# JAX compiles for each number of ids.
NUMBERS = st.sampled_from((2, 3, 37, 64, 1000)) if JAX else st.integers(2, 1000)


if JAX:
    import jax

    compiled = jax.jit(inverse_cdf.draw)
else:
    compiled = inverse_cdf.draw


def draw(logits, uniforms):
    drawn = compiled(np.asarray(logits, "float32"), np.asarray(uniforms, "float32"))
    return np.array(ops.convert_to_numpy(drawn))


def log(probabilities):
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(probabilities, "float32"))


def test_the_example():
    np.testing.assert_array_equal(draw(log([[0.5, 0.25, 0.25]]), [[0.0, 0.49, 0.51, 0.99]]), [[0, 0, 1, 2]])


@pytest.mark.parametrize("num_ids", [1, 2, 3, 17, 512, 1000])
def test_frequencies(num_ids):
    rng = np.random.default_rng(num_ids)
    logits, number = rng.normal(size=(1, num_ids)), 200_000
    probabilities = np.exp(logits[0]) / np.exp(logits[0]).sum()
    drawn = draw(logits, rng.uniform(size=(1, number)))
    assert drawn.dtype == "int32"
    counts = np.bincount(drawn[0], minlength=num_ids)
    assert len(counts) == num_ids
    # 5 standard errors: one in two million for each of the at most 1,000 ids; 1 for ids with next to no draws.
    errors = np.sqrt(number * probabilities * (1 - probabilities))
    assert (np.abs(counts - number * probabilities) <= 5 * errors + 1).all()
    if num_ids > 1:
        chi_square = ((counts - number * probabilities) ** 2 / (number * probabilities)).sum()
        # Mean K - 1, variance 2 (K - 1).
        assert abs(chi_square - (num_ids - 1)) < 5 * np.sqrt(2 * (num_ids - 1)) + 5


@given(
    num_ids=NUMBERS,
    share=st.floats(0.0, 1.0),
    scale=st.sampled_from([0.1, 1.0, 10.0, 60.0]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=100, deadline=None)
def test_no_id_of_probability_zero(num_ids, share, scale, seed):
    """Sparse distributions, blocks of zeros among them, at the ends of [0, 1), at the steps and in between."""
    rng = np.random.default_rng(seed)
    logits = (scale * rng.normal(size=(64, num_ids))).astype("float32")
    possible = rng.uniform(size=logits.shape) < share
    possible[np.arange(64), rng.integers(0, num_ids, size=64)] = True
    logits[~possible] = -np.inf
    ends = np.exp(logits - logits.max(-1, keepdims=True)).cumsum(-1)
    steps = (ends / ends[:, -1:])[:, rng.integers(0, num_ids, size=30)].astype("float32")
    uniforms = np.concatenate([np.zeros((64, 1)), np.full((64, 1), LARGEST), steps, rng.uniform(size=(64, 30))], -1)
    drawn = draw(logits, np.minimum(uniforms, LARGEST))
    assert drawn.min() >= 0
    assert drawn.max() < num_ids
    assert np.take_along_axis(possible, drawn, -1).all()


def test_one_possible_id_is_always_drawn():
    uniforms = np.array([[0.0, 1e-30, 0.5, LARGEST]])
    for only in range(37):
        logits = np.full((1, 37), -np.inf)
        logits[0, only] = -50.0
        np.testing.assert_array_equal(draw(logits, uniforms), [[only] * 4])


def test_the_ends_of_the_unit_interval():
    """0 draws the first possible id and the largest number below 1 the last, which rounding must not push past."""
    for num_ids in (2, 65, 1000):
        logits = np.zeros((1, num_ids))
        logits[0, 0] = logits[0, -1] = -np.inf if num_ids > 2 else 0
        first, last = draw(logits, [[0.0, LARGEST]])[0]
        assert first == np.flatnonzero(np.isfinite(logits[0]))[0]
        assert last == np.flatnonzero(np.isfinite(logits[0]))[-1]


def test_improbable_beyond_float32_does_no_harm():
    logits = np.array([[-200.0, 0.0, -101.0, -np.inf, 0.0, -90.0, -300.0]])
    assert set(draw(logits, [[0.0, 0.25, 0.5, 0.75, LARGEST]])[0]) <= {0, 1, 4, 5}
    np.testing.assert_array_equal(draw(logits, [[0.25, 0.75]]), [[1, 4]])


@given(num_ids=NUMBERS, leading=st.sampled_from([(), (3,), (2, 3)]), seed=st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_numpys_search_finds_the_same(num_ids, leading, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(*leading, num_ids)).astype("float32")
    uniforms = rng.uniform(size=(*leading, 40)).astype("float32")
    drawn = draw(logits, uniforms)
    assert drawn.shape == uniforms.shape
    for index in np.ndindex(*leading):
        ends = np.cumsum(np.exp(logits[index].astype("float64")))
        ends /= ends[-1]
        expected = np.searchsorted(ends, uniforms[index].astype("float64"), side="right")
        # float32 sums of K terms are off by some 1e-6: nearer to a step than that, either side is right.
        near = np.abs(ends[:, None] - uniforms[index]).min(0) < 3e-6
        np.testing.assert_array_equal(drawn[index][~near], expected[~near])
        assert (np.abs(drawn[index] - expected) <= 1).all()


def test_weights_and_logits_draw_the_same():
    rng = np.random.default_rng(0)
    weights, uniforms = rng.exponential(size=(5, 33)).astype("float32"), rng.uniform(size=(5, 99)).astype("float32")
    drawn = np.array(ops.convert_to_numpy(inverse_cdf.draw_weighted(weights, uniforms)))
    assert (drawn != draw(np.log(weights), uniforms)).mean() < 0.01  # But for rounding of the logarithm.
    np.testing.assert_array_equal(drawn, ops.convert_to_numpy(inverse_cdf.draw_weighted(2.0**40 * weights, uniforms)))


def test_an_empty_batch():
    assert inverse_cdf.draw_weighted(ops.zeros((0, 9)), ops.zeros((0, 4))).shape == (0, 4)


def test_each_row_stands_alone():
    """The same numbers give the same ids in any batch."""
    rng = np.random.default_rng(0)
    logits, uniforms = rng.normal(size=(12, 100)), rng.uniform(size=(12, 7))
    whole = draw(logits, uniforms)
    np.testing.assert_array_equal(
        np.concatenate([draw(logits[:5], uniforms[:5]), draw(logits[5:], uniforms[5:])]), whole
    )
    order = rng.permutation(12)
    np.testing.assert_array_equal(draw(logits[order], uniforms[order]), whole[order])
