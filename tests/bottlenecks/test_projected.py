"""Learned maps around a bottleneck: the maps by hand, and all that the bottleneck inside has to keep."""

import keras
import numpy as np
import pytest
from contract import (
    EXAMPLES,
    assert_decoding_is_evaluation,
    assert_garbage_equals_absence,
    assert_half_precision_rounds_only_what_goes_in_and_out,
    assert_saved_model_computes_the_same,
    built,
)
from harness import array, assert_same_state, call, state
from hypothesis import given, settings
from hypothesis.extra import numpy as npst
from test_finite_scalar import vectors_and_codes

from vq_keras.bottlenecks import SoftEM, VectorQuantizer
from vq_keras.bottlenecks.finite_scalar import FiniteScalarQuantizer
from vq_keras.bottlenecks.lookup_free import LookupFreeQuantizer
from vq_keras.bottlenecks.projected import Projected
from vq_keras.errors import InputError


def scalar(**arguments):
    return Projected(FiniteScalarQuantizer((5, 4, 3)), **arguments)


def vector(**arguments):
    return Projected(VectorQuantizer(6, decay=0.7, restart_threshold=0.5, seed=3, name="inside"), dim=2, **arguments)


def maps(layer):
    """The weights, after the bias was moved from where it starts."""
    layer.inward.bias.assign(np.linspace(-0.5, 0.7, layer.projected_dim))
    return [array(weight).astype("float64") for weight in (*layer.inward.weights, *layer.outward.weights)]


def test_by_hand(rng):
    layer = built(scalar, (None, 7))
    kernel, bias, back = maps(layer)

    @given(npst.arrays(bool, (3, 5)))
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
    def check(mask):
        latents = (2 * rng.normal(size=(3, 5, 7))).astype("float32")
        vectors, codes = vectors_and_codes(latents @ kernel + bias, (5, 4, 3))
        latents[~mask] = np.nan
        outputs = call(layer, latents, mask=mask)
        np.testing.assert_array_equal(outputs["codes"], np.where(mask, codes, -1))
        np.testing.assert_array_equal(outputs["samples"], outputs["codes"][..., None])
        expected = np.where(mask[..., None], vectors @ back, 0)
        np.testing.assert_allclose(outputs["quantized"], expected, rtol=1e-5, atol=1e-6)
        assert (outputs["quantized"][~mask] == 0).all()
        assert outputs["loss"] == 0

    check()


def test_what_it_is_from_outside():
    layer = Projected(VectorQuantizer(6, num_codebooks=2), dim=3)
    assert (layer.num_codes, layer.num_codebooks, layer.projected_dim) == (6, 2, 3)
    assert layer.code_shape((8, 2)) == (8, 2)
    inputs = keras.Input((8, 2, 5))
    outputs = layer(inputs)
    assert outputs["quantized"].shape == (None, 8, 2, 5)
    assert outputs["codes"].shape == (None, 8, 2)
    assert (scalar().num_codes, scalar().projected_dim) == (60, 3)
    assert Projected(LookupFreeQuantizer(16)).projected_dim == 4


def test_the_loss_of_the_bottleneck_inside_counts_once(rng):
    latents = rng.normal(size=(9, 5)).astype("float32")
    layer = built(lambda: Projected(LookupFreeQuantizer(8, temperature=2.0)), latents.shape)
    kernel, bias, _ = maps(layer)
    alone = LookupFreeQuantizer(8, temperature=2.0)
    inner = (latents @ kernel + bias).astype("float32")
    expected = call(alone, inner)["loss"]
    for _ in range(2):
        assert call(layer, latents, training=True)["loss"] == pytest.approx(expected, rel=1e-5)


def test_masked_latents(rng):
    """With moving averages, initialisation and restarts inside, whose sums a masked latent's bias must not reach."""
    mask = rng.random((3, 7)) < 0.6
    latents = rng.normal(size=(3, 7, 4)).astype("float32")
    assert_garbage_equals_absence(vector, latents, mask)


def test_latents_that_are_no_numbers(rng):
    latents = rng.normal(size=(4, 5)).astype("float32")
    layer = built(scalar, latents.shape)
    latents[1, 0], latents[2, 4] = np.nan, np.inf
    outputs = call(layer, latents)
    assert (outputs["codes"] == -1).tolist() == [False, True, True, False]
    assert np.isnan(outputs["quantized"]).all(-1).tolist() == [False, True, True, False]
    np.testing.assert_array_equal(array(layer.encode(latents)), outputs["codes"])
    np.testing.assert_array_equal(array(layer.sample(latents))[:, 0], outputs["codes"])


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision(policy, rng):
    latents = rng.normal(size=(40, 5)).astype("float32")
    # One last bit of half precision, where a sum was rounded to the other side.
    rtol = {"mixed_float16": 2**-10, "mixed_bfloat16": 2**-7}[policy]
    assert_half_precision_rounds_only_what_goes_in_and_out(vector, latents, policy, rtol=rtol)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("make", [scalar, vector], ids=["scalar", "vector"])
def test_decoding_the_codes_is_the_output_of_evaluation(make, policy, rng):
    keras.config.set_dtype_policy(policy)
    layer = built(make, (None, 5))
    maps(layer)
    rtol = 1e-6 if policy == "float32" else 2**-7
    assert_decoding_is_evaluation(layer, rng.normal(size=(2, 6, 5)).astype("float32"), rtol)


def test_decoding_the_mean_of_samples(rng):
    layer = built(lambda: Projected(SoftEM(6, num_samples=3, temperature=3.0), dim=2), (None, 5))
    outputs = call(layer, rng.normal(size=(4, 5)).astype("float32"), training=True)
    assert outputs["samples"].shape == (4, 3)
    decoded = array(layer.decode_samples(outputs["samples"]))
    one_by_one = [array(layer.decode(outputs["samples"][:, sample])) for sample in range(3)]
    np.testing.assert_allclose(decoded, np.mean(one_by_one, axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("when", ["from the start", "later", "loaded"])
def test_frozen(when, rng):
    latents = rng.normal(size=(8, 4)).astype("float32")
    make = (lambda: vector(trainable=False)) if when == "from the start" else vector
    layer = built(make, latents.shape)
    if when != "from the start":
        layer.trainable = False
    if when == "loaded":
        layer = built(lambda: Projected.from_config(layer.get_config()), latents.shape)
    assert not layer.trainable_variables
    before = state(layer)
    call(layer, latents, training=True)
    assert_same_state(state(layer), before)


@pytest.mark.parametrize("make", [scalar, vector], ids=["scalar", "vector"])
def test_a_saved_model_computes_the_same(make, tmp_path):
    assert_saved_model_computes_the_same(make(name="projected"), tmp_path, 7)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Projected(VectorQuantizer(8)), "a VectorQuantizer takes latents of any dimensions; give Projected"),
        (lambda: scalar(dim=4), "dim is 4, but this FiniteScalarQuantizer needs 3; leave dim out"),
        (lambda: Projected(VectorQuantizer(8), dim=0), "dim is 0; give 1 or more"),
        (lambda: built(scalar, (None, 5))(np.zeros((2, 4), "float32")), "latents have 4 dimensions"),
        (lambda: built(scalar, (None, 5)).encode(np.zeros((2, 4), "float32")), "latents have 4 dimensions"),
        (lambda: built(scalar, (None, 5))(np.zeros((2, 5), "float32"), mask=np.ones(3)), r"mask has the shape \(3,\)"),
    ],
)
def test_what_does_not_fit(make, message):
    with pytest.raises(InputError, match=message):
        make()
