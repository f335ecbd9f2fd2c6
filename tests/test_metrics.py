import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from vq_keras.errors import InputError
from vq_keras.metrics import (
    CodebookDistance,
    CodesInUse,
    LargestShare,
    Perplexity,
    bits_per_dim,
    psnr,
    squared_distances,
)

METRICS = [Perplexity, CodesInUse, LargestShare]


def numpy_figures(codes, num_codes, num_codebooks):
    """Perplexity, codes in use and largest share, one codebook after the other."""
    perplexities, used, largest = [], 0, 0.0
    for book in codes.reshape(-1, num_codebooks).T:
        counts = np.array([np.sum(book == k) for k in range(num_codes)])
        shares = counts[counts > 0] / max(counts.sum(), 1)
        perplexities.append(np.exp(-np.sum(shares * np.log(shares))))
        used += len(shares)
        largest = max([largest, *shares])
    return np.mean(perplexities), used, largest


def figures(batches, *arguments):
    results = []
    for metric in [each(*arguments) for each in METRICS]:
        for codes in batches:
            metric.update_state(ops.convert_to_tensor(codes, "int32"))
        results.append(float(metric.result()))
    return results


def test_known_bits_per_dim():
    assert bits_per_dim(math.log(256), 0.0, 3072, 640) == pytest.approx(8.0)
    assert bits_per_dim(0.0, math.log(256), 3072, 640) == pytest.approx(5 / 3)
    assert bits_per_dim(0.0, math.log(512), 3072, 640) == pytest.approx(1.875)


def test_bits_per_dim_of_arrays_and_tensors():
    nll_x, nll_z = np.float32([1.0, 2.0]), np.float32([0.5, 3.0])
    expected = np.array([(1 * 12 + 0.5 * 4) / 12, (2 * 12 + 3 * 4) / 12]) / np.log(2)
    np.testing.assert_allclose(bits_per_dim(nll_x, nll_z, 12, 4), expected, rtol=1e-6)
    tensors = ops.convert_to_tensor(nll_x), ops.convert_to_tensor(nll_z)
    np.testing.assert_allclose(bits_per_dim(*tensors, 12, 4), expected, rtol=1e-6)


def test_known_usage():
    assert figures([[0, 0, 1, 2]], 4) == pytest.approx([2.828427, 3, 0.5], rel=1e-6)
    assert figures([[3, 3, 3]], 8) == pytest.approx([1, 1, 1])
    assert figures([np.arange(64)], 64) == pytest.approx([64, 64, 1 / 64], rel=1e-5)


def test_batches_are_pooled_and_not_averaged():
    # Two batches of perplexity 1 each make one of perplexity 2.
    assert figures([[0, 0], [1, 1]], 2) == pytest.approx([2, 2, 0.5])


@pytest.mark.slow
@settings(deadline=None, max_examples=10)
@given(
    st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 3), st.lists(st.integers(1, 5), min_size=1, max_size=3)
)
def test_usage_equals_numpy(seed, num_codes, num_codebooks, sizes):
    rng = np.random.default_rng(seed)
    # -1 is a masked position.
    batches = [rng.integers(-1, num_codes, (size, 2, num_codebooks)) for size in sizes]
    expected = numpy_figures(np.concatenate(batches), num_codes, num_codebooks)
    assert figures(batches, num_codes, num_codebooks) == pytest.approx(expected, rel=1e-5)


def test_masked_positions_count_nowhere():
    assert figures([[[0, -1], [-1, -1]], [[1, -1], [-1, 0]]], 4) == figures([[0, 1, 0]], 4)
    # Every position masked, as before the first batch.
    assert figures([[-1, -1]], 4) == figures([], 4) == [1.0, 0.0, 0.0]


def test_codebooks_are_counted_apart():
    # Codebook 0 has collapsed, codebook 1 is uniform: perplexities 1 and 4.
    codes = [[2, 0], [2, 1], [2, 2], [2, 3]]
    assert figures([codes], 4, 2) == pytest.approx([2.5, 5, 1.0])
    with pytest.raises(InputError, match=r"\(4, 3\) do not fit 2 codebooks"):
        figures([np.zeros((4, 3))], 4, 2)


def test_counts_stay_exact_beyond_float32():
    metric = LargestShare(2)
    metric.counts.assign([[2**24, 2**24]])
    metric.update_state(ops.convert_to_tensor([0, 1, 1], "int32"))
    np.testing.assert_array_equal(metric.counts, [[2**24 + 1, 2**24 + 2]])


@pytest.mark.parametrize("metric_class", METRICS)
def test_reset_and_config(metric_class):
    metric = metric_class(5, 2)
    before = float(metric.result())
    metric.update_state(ops.convert_to_tensor([[1, 2], [3, 4]], "int32"))
    assert float(metric.result()) != before
    metric.reset_state()
    assert float(metric.result()) == before
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert again.get_config() == metric.get_config() and (again.num_codes, again.num_codebooks) == (5, 2)


def distance(*batches):
    metric = CodebookDistance()
    for distances, codes in batches:
        metric.update_state(ops.convert_to_tensor(distances, "float32"), ops.convert_to_tensor(codes, "int32"))
    return float(metric.result())


def test_squared_distances_are_means_over_dimensions():
    rng = np.random.default_rng(0)
    latents, quantized = (rng.normal(size=(2, 3, 4, 8)).astype("float32") for _ in range(2))
    expected = ((latents.astype("float64") - quantized) ** 2).mean(-1)
    np.testing.assert_allclose(squared_distances(latents, quantized), expected, rtol=1e-6)
    # Half precision is what a decoder gets; the difference is not taken in it.
    half = ops.cast(quantized, "bfloat16")
    expected = ((latents.astype("float64") - ops.convert_to_numpy(ops.cast(half, "float32"))) ** 2).mean(-1)
    np.testing.assert_allclose(squared_distances(latents, half), expected, rtol=1e-5)


@pytest.mark.parametrize("stages", [0, 3])
def test_distances_are_pooled_over_latents_that_count(stages):
    rng, batches, pooled = np.random.default_rng(0), [], []
    # The batches' means differ, and so do their numbers of masked positions.
    for size, scale in ((5, 1.0), (3, 100.0), (1, 0.01)):
        distances = scale * rng.random((size, 4))
        masked = rng.random((size, 4)) < 0.4
        codes = rng.integers(0, 7, (size, 4, stages) if stages else (size, 4))
        codes[masked] = -1
        if stages:
            codes[..., 1:] = -1  # Dropped stages mask nothing.
        batches.append((np.where(masked, np.nan, distances), codes))
        pooled.append(distances[~masked])
    assert distance(*batches) == pytest.approx(np.concatenate(pooled).mean(), rel=1e-6)


def test_a_distance_of_nothing():
    assert distance() == distance(([[9.0, 9.0]], [[-1, -1]])) == 0
    assert distance(([[9.0]], [[-1]]), ([[0.5]], [[1]])) == 0.5


def test_distances_of_more_latents_than_float32_counts():
    metric = CodebookDistance()
    metric.count.assign(2**26)
    metric.mean.assign(1.0)
    for _ in range(4):
        metric.update_state(ops.full((2**20 + 1,), 3.0), ops.zeros((2**20 + 1,), "int32"))
    more = 4 * (2**20 + 1)
    assert int(metric.count) == 2**26 + more
    assert float(metric.result()) == pytest.approx((2**26 + 3 * more) / (2**26 + more), rel=1e-6)
    metric.reset_state()
    assert float(metric.result()) == 0
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert again.get_config() == metric.get_config()


@pytest.mark.parametrize("shape", [(2, 4), (2,), (2, 3, 2, 2)])
def test_codes_without_a_distance_each(shape):
    with pytest.raises(InputError, match=r"do not fit distances of shape \(2, 3\)"):
        distance((np.zeros((2, 3)), np.zeros(shape)))


class Rounding(keras.Model):
    """Its codes are its rounded inputs; reports their use."""

    def __init__(self):
        super().__init__()
        self.usage = [each(num_codes=6) for each in METRICS]
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        return {"codes": ops.cast(ops.round(x), "int32"), "y": x * self.scale}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(ops.square(y - ops.cast(y_pred["y"], "float32")))

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        for metric in self.usage:
            metric.update_state(y_pred["codes"])
        return self.get_metrics_result()


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_metrics_in_a_model_pool_one_epoch(policy):
    keras.config.set_dtype_policy(policy)
    # Batches of 4, 4 and 2. Levels below 4 survive bfloat16.
    x = np.random.default_rng(0).integers(0, 4, (10, 3)).astype("float32")
    model = Rounding()
    model.compile(optimizer="sgd")
    history = model.fit(x, x, batch_size=4, epochs=2, shuffle=False, verbose=0).history
    expected = dict(zip(["perplexity", "codes_in_use", "largest_share"], numpy_figures(x, 6, 1), strict=True))
    results = model.evaluate(x, x, batch_size=4, verbose=0, return_dict=True)
    for name, value in expected.items():
        # Each epoch starts from zero.
        assert history[name] == pytest.approx([value, value], rel=1e-5)
        assert results[name] == pytest.approx(value, rel=1e-5)


def test_psnr_is_that_of_each_image():
    rng = np.random.default_rng(0)
    images, other = rng.integers(0, 256, (2, 3, 4, 5, 2)).astype("uint8")
    errors = ((images.astype("float64") - other) ** 2).mean(axis=(1, 2, 3))
    # float32 logarithms.
    np.testing.assert_allclose(psnr(images, other), 10 * np.log10(255**2 / errors), rtol=1e-5)
    np.testing.assert_allclose(psnr(other, images), psnr(images, other), rtol=1e-6)
    opposite = psnr(np.zeros((1, 2, 2, 3), "uint8"), np.full((1, 2, 2, 3), 255, "uint8"))
    assert float(opposite[0]) == pytest.approx(0, abs=1e-5)


def test_psnr_of_identical_images_is_finite():
    images = np.full((2, 32, 32, 3), 9, "uint8")
    off_by_one = images.copy()
    off_by_one[1, 0, 0, 0] += 1
    one_level = 10 * math.log10(255**2 * 3072)
    np.testing.assert_allclose(psnr(images, off_by_one), [one_level, one_level], rtol=1e-6)
