"""Bottlenecks made of others: product, residual, grouped."""

import keras
import numpy as np
import pytest
from harness import BACKEND, array, assert_same_state, call, embeddings_of, gradients, make, state
from hypothesis import given, settings
from hypothesis import strategies as st

from vq_keras.bottlenecks import GroupedQuantizer, ProductQuantizer, ResidualQuantizer, SoftEM, VectorQuantizer
from vq_keras.errors import InputError

CALM = {"epsilon": 0.0, "restart_threshold": 0.0, "initializer": "normal", "seed": 1}


def built(layer, dim):
    layer.build((None, dim))
    return layer


def nearest(x, codes):
    return np.square(x[:, None] - codes).sum(-1).argmin(-1)


def test_a_product_is_its_blocks_side_by_side(rng):
    codes, latents = rng.normal(size=(2, 5, 3)), rng.normal(size=(40, 6)).astype("float32")
    inner = make(codes, decay=0.8)
    layer = built(ProductQuantizer(inner), 6)
    outputs = call(layer, latents, training=True)
    ids = [nearest(latents[:, 3 * b : 3 * b + 3], codes[b]) for b in range(2)]
    np.testing.assert_array_equal(outputs["codes"], ids[0] + 5 * ids[1])
    expected = np.concatenate([codes[b][ids[b]] for b in range(2)], axis=-1)
    np.testing.assert_allclose(outputs["quantized"], expected, rtol=1e-6)
    assert outputs["loss"] == pytest.approx(0.25 * np.square(latents - expected).mean(), rel=1e-5)
    assert layer.num_codes == 25
    # All joint codes decode to all pairs.
    table = array(layer.decode(np.arange(25, dtype="int32")))
    now = embeddings_of(inner)
    np.testing.assert_array_equal(table, [[*now[0, k % 5], *now[1, k // 5]] for k in range(25)])
    np.testing.assert_array_equal(array(layer.decode(np.array([-1], "int32"))), np.zeros((1, 6)))


@pytest.mark.parametrize("kind", [VectorQuantizer, SoftEM])
def test_one_block_and_one_stage_are_the_bottleneck_itself(kind, rng):
    codes, latents = rng.normal(size=(8, 4)), rng.normal(size=(3, 7, 4)).astype("float32")
    mask = rng.uniform(size=(3, 7)) < 0.7
    alone, inner, stage = (make(codes, kind, decay=0.7) for _ in range(3))
    product, residual = built(ProductQuantizer(inner), 4), built(ResidualQuantizer([stage]), 4)
    for _ in range(2):
        expected = call(alone, latents, mask=mask, training=True)
        for layer, index in ((product, ...), (residual, (..., 0))):
            outputs = call(layer, latents, mask=mask, training=True)
            np.testing.assert_array_equal(outputs["codes"][index], expected["codes"])
            np.testing.assert_allclose(outputs["quantized"], expected["quantized"], rtol=1e-6)
            assert outputs["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    # XLA rounds one formula differently in different programs.
    for layer in (inner, stage):
        np.testing.assert_allclose(embeddings_of(layer), embeddings_of(alone), rtol=1e-6)


def test_a_projected_product_lies_in_the_projected_space(rng):
    inner = make(rng.normal(size=(2, 5, 3)))
    layer = built(ProductQuantizer(inner, projection=True, seed=3), 6)
    latents = rng.normal(size=(9, 6)).astype("float32")
    projected = latents @ array(layer.matrix)
    blocks = call(inner, projected.reshape(9, 2, 3))
    outputs = call(layer, latents)
    np.testing.assert_array_equal(outputs["codes"], blocks["codes"] @ [1, 5])
    np.testing.assert_allclose(outputs["quantized"], blocks["quantized"].reshape(9, 6), rtol=1e-6)
    upstream = rng.normal(size=(9, 6)).astype("float32")
    np.testing.assert_allclose(gradients(layer, latents, upstream)[0], upstream @ array(layer.matrix).T, rtol=1e-4)
    assert not layer.trainable_variables


def stages(rng, number=3, num_codes=6, dim=4, **arguments):
    return [make(rng.normal(size=(num_codes, dim)) / 2**i, **arguments) for i in range(number)]


def test_stages_quantise_what_is_left_over(rng):
    layers = stages(rng, decay=0.8)
    codes = [embeddings_of(layer)[0] for layer in layers]
    latents = rng.normal(size=(50, 4)).astype("float32")
    outputs = call(built(ResidualQuantizer(layers), 4), latents, training=True)
    rest, loss = latents.astype("float64"), 0.0
    for i in range(3):
        ids = nearest(rest, codes[i])
        np.testing.assert_array_equal(outputs["codes"][:, i], ids)
        rest = rest - codes[i][ids]
        loss += 0.25 * np.square(rest).mean()
    np.testing.assert_allclose(outputs["quantized"], latents - rest, atol=1e-6)
    assert outputs["loss"] == pytest.approx(loss, rel=1e-5)


def test_every_stage_reaches_the_encoder_and_the_output_once(rng):
    layers = stages(rng)
    codes = [embeddings_of(layer)[0].astype("float64") for layer in layers]
    layer = built(ResidualQuantizer(layers), 4)
    latents, upstream = (rng.normal(size=(10, 4)).astype("float32") for _ in range(2))
    np.testing.assert_array_equal(gradients(layer, latents, upstream)[0], upstream)
    layers = [make(table) for table in codes]
    layer = built(ResidualQuantizer(layers), 4)
    rest, expected = latents.astype("float64"), 0.0
    for table in codes:
        rest = rest - table[nearest(rest, table)]
        expected = expected + 0.25 * 2 * rest / rest.size
    np.testing.assert_allclose(gradients(layer, latents)[0], expected, rtol=1e-4, atol=1e-7)


def test_dropped_stages_see_nothing(rng):
    """Half of the examples drop stages: codes are -1 from a stage on, and decode to the sum of those before."""
    layer = built(ResidualQuantizer(stages(rng, 4), dropout=0.5, seed=5), 4)
    latents = rng.normal(size=(4000, 2, 4)).astype("float32")
    whole = array(layer.encode(latents))
    outputs = call(layer, latents, training=True)
    depths = (outputs["codes"] >= 0).sum(-1)
    assert (depths[:, 0] == depths[:, 1]).all()
    np.testing.assert_array_equal(outputs["codes"], np.where(np.arange(4) < depths[..., None], whole, -1))
    # P(depth = 4) = 1/2 + 1/2 1/4, each other 1/8; four standard errors.
    shares = np.bincount(depths[:, 0], minlength=5)[1:] / 4000
    np.testing.assert_allclose(shares, [0.125, 0.125, 0.125, 0.625], atol=4 * np.sqrt(0.25 / 4000))
    fresh = built(ResidualQuantizer(stages(np.random.default_rng(1), 4)), 4)
    np.testing.assert_allclose(outputs["quantized"], array(fresh.decode(outputs["codes"])), atol=1e-6)
    assert (call(layer, latents)["codes"] == array(layer.encode(latents))).all()


def grouped(rng):
    return built(GroupedQuantizer([ResidualQuantizer(stages(rng, 2, dim=2)) for _ in range(2)]), 4)


def test_stages_are_dropped_in_fit_as_well(rng):
    """Whose TensorFlow graphs cannot be iterated over, as eager tensors can."""
    layer = built(ResidualQuantizer(stages(rng, 3, commitment_weight=1.0), dropout=0.9, seed=5), 4)
    latents = rng.normal(size=(400, 2, 4)).astype("float32")
    whole = array(layer.encode(latents))
    left = [latents - array(layer.decode(np.where(np.arange(3) < depth, whole, -1))) for depth in (1, 2, 3)]
    errors = np.array([np.square(rest).mean(axis=(1, 2)) for rest in left])
    # The depths have the probabilities 0.9 / 3 each, and all three stages 0.1 more. A stage's loss is the mean over
    # those examples that it sees.
    expected = np.array([0.3, 0.3, 0.4]) @ errors.mean(1) + errors.mean(1).sum()

    inputs = keras.Input((2, 4))
    model = keras.Model(inputs, layer(keras.layers.Dense(4, kernel_initializer="identity")(inputs))["quantized"])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    loss = model.fit(latents, latents, batch_size=400, verbose=0).history["loss"][0]
    # Four standard errors of four such means, of 160 examples at least.
    assert loss == pytest.approx(expected, abs=4 * 2 * errors.std() / np.sqrt(160))
    assert loss != pytest.approx(errors[2].mean() + errors.mean(1).sum(), rel=0.05)  # Without dropout.


def composed(name, rng):
    layers = {
        "product": lambda: built(ProductQuantizer(make(rng.normal(size=(2, 5, 2)), decay=0.8)), 4),
        "product_soft": lambda: built(ProductQuantizer(make(rng.normal(size=(2, 5, 2)), SoftEM, num_samples=3)), 4),
        "residual": lambda: built(ResidualQuantizer(stages(rng, 3)), 4),
        "grouped": lambda: grouped(rng),
        "grouped_plain": lambda: built(GroupedQuantizer(stages(rng, 2, dim=2)), 4),
    }
    return layers[name]()


NAMES = ("product", "product_soft", "residual", "grouped", "grouped_plain")


def test_groups_are_their_bottlenecks_side_by_side(rng):
    layer = grouped(rng)
    latents = rng.normal(size=(20, 4)).astype("float32")
    outputs = call(layer, latents)
    parts = [call(group, latents[:, 2 * i : 2 * i + 2]) for i, group in enumerate(layer.groups)]
    for name in ("codes", "quantized"):
        np.testing.assert_array_equal(outputs[name], np.concatenate([part[name] for part in parts], -1))
    assert layer.num_codebooks == 4
    assert layer.code_shape((8, 8)) == (8, 8, 4)


@pytest.mark.parametrize("name", NAMES)
def test_the_contract(name, rng):
    layer = composed(name, rng)
    latents = rng.normal(size=(3, 8, 4)).astype("float32")
    outputs = call(layer, latents, training=False)
    assert outputs["codes"].shape == (3, *layer.code_shape((8,)))
    np.testing.assert_array_equal(outputs["codes"], array(layer.encode(latents)))
    np.testing.assert_array_equal(outputs["quantized"], array(layer.decode(outputs["codes"])))
    samples = array(layer.sample(latents))
    assert samples.shape[:-1] == outputs["codes"].shape
    np.testing.assert_allclose(
        array(layer.decode_samples(samples[..., :1])), array(layer.decode(samples[..., 0])), rtol=1e-6
    )
    symbolic = layer(keras.Input((8, 4)))
    assert {key: tensor.shape[1:] for key, tensor in symbolic.items()} == {
        "quantized": (8, 4),
        "codes": layer.code_shape((8,)),
        "samples": (*layer.code_shape((8,)), None),
    }


@pytest.mark.parametrize("name", NAMES)
def test_masked_garbage_changes_nothing(name, rng):
    latents = rng.normal(size=(3, 8, 4)).astype("float32")
    mask = rng.uniform(size=(3, 8)) < 0.6
    broken = np.where(mask[..., None], latents, np.nan).astype("float32")
    outputs, states = [], []
    for values in (np.where(mask[..., None], latents, 0).astype("float32"), broken):
        layer = composed(name, np.random.default_rng(7))
        outputs.append(call(layer, values, mask=mask, training=True))
        states.append(state(layer))
    assert_same_state(*states)
    for key in outputs[0]:
        np.testing.assert_array_equal(outputs[0][key], outputs[1][key])
    assert (outputs[0]["codes"][~mask] == -1).all()
    assert (outputs[0]["codes"][mask] >= 0).all()
    assert (outputs[0]["quantized"][~mask] == 0).all()


def without_shapes(config):
    """A configuration without the shapes that Keras notes for layers inside that are built already."""
    if isinstance(config, dict):
        return {key: without_shapes(value) for key, value in config.items() if key != "build_config"}
    return [without_shapes(each) for each in config] if isinstance(config, list) else config


@pytest.mark.parametrize("name", NAMES)
def test_file_and_configuration_round_trips(name, rng, tmp_path):
    inputs = keras.Input((8, 4))
    layer = composed(name, rng)
    model = keras.Model(inputs, layer(inputs))
    call(layer, rng.normal(size=(3, 8, 4)).astype("float32"), training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").layers[-1]
    # Paths differ, as these parts were built before the whole was.
    for ours, theirs in zip(loaded.variables, layer.variables, strict=True):
        np.testing.assert_array_equal(array(ours), array(theirs), err_msg=ours.path)
    assert without_shapes(loaded.get_config()) == without_shapes(layer.get_config())
    frozen = state(layer)
    layer.trainable = False
    call(layer, rng.normal(size=(3, 8, 4)).astype("float32"), training=True)
    after = state(layer)
    for path in frozen:
        if "seed_generator" not in path:  # Draws of soft EM and of dropout go on.
            np.testing.assert_array_equal(after[path], frozen[path], err_msg=path)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="JAX would compile every shape anew")
@settings(max_examples=15, deadline=None, derandomize=True)
@given(blocks=st.integers(1, 4), block_codes=st.integers(2, 7), seed=st.integers(0, 99))
def test_joint_codes_and_their_vectors_are_in_bijection(blocks, block_codes, seed):
    codes = np.random.default_rng(seed).normal(size=(blocks, block_codes, 2))
    layer = built(ProductQuantizer(make(codes if blocks > 1 else codes[0])), 2 * blocks)
    ids = np.arange(layer.num_codes, dtype="int32")[:300]
    np.testing.assert_array_equal(array(layer.encode(layer.decode(ids))), ids)


@pytest.mark.parametrize(
    ("make_layer", "dim", "message"),
    [
        (lambda: ProductQuantizer(VectorQuantizer(4, num_codebooks=3)), 8, "cannot be cut into 3 equal blocks"),
        (lambda: ProductQuantizer(VectorQuantizer(2**11, num_codebooks=3)), 6, "more than an int32"),
        (lambda: ResidualQuantizer([]), 4, "at least one stage"),
        (lambda: ResidualQuantizer([VectorQuantizer(4), VectorQuantizer(5)]), 4, "all with as many codes"),
        (lambda: ResidualQuantizer([VectorQuantizer(4, rotation=True)]), 4, "VectorQuantizer cannot be a stage"),
        (lambda: ResidualQuantizer([VectorQuantizer(4)], dropout=1.0), 4, "dropout is 1.0"),
        (lambda: GroupedQuantizer([]), 4, "at least one group"),
        (lambda: GroupedQuantizer([VectorQuantizer(4), VectorQuantizer(5)]), 4, "all as many codes"),
        (lambda: GroupedQuantizer([VectorQuantizer(4, num_codebooks=2)]), 4, "no axis of codebooks"),
        (lambda: GroupedQuantizer([VectorQuantizer(4) for _ in range(3)]), 4, "cannot be cut into 3 equal groups"),
    ],
)
def test_what_does_not_fit(make_layer, dim, message):
    with pytest.raises(InputError, match=message):
        make_layer().build((None, dim))


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_rounds_the_result_alone(name, rng):
    latents = rng.normal(size=(6, 8, 4)).astype("float16").astype("float32")
    expected = call(composed(name, np.random.default_rng(7)), latents)
    for policy in ("mixed_float16", "mixed_bfloat16")[: 1 if BACKEND == "jax" else 2]:
        keras.config.set_dtype_policy(policy)
        layer = composed(name, np.random.default_rng(7))
        outputs = call(layer, latents)
        assert str(outputs["quantized"].dtype) == policy.removeprefix("mixed_")
        np.testing.assert_array_equal(outputs["quantized"], array(layer.decode(outputs["codes"])))
        if policy == "mixed_float16":  # bfloat16 rounds the latents, too.
            np.testing.assert_array_equal(outputs["codes"], expected["codes"])


@pytest.mark.parametrize("name", NAMES)
def test_frozen_from_the_start(name, rng):
    layer = composed(name, rng)
    config = {**layer.get_config(), "trainable": False}
    frozen = built(type(layer).from_config(config), 4)
    before = state(frozen)
    call(frozen, rng.normal(size=(3, 8, 4)).astype("float32"), training=True)
    after = state(frozen)
    for path in before:
        if "seed_generator" not in path:
            np.testing.assert_array_equal(after[path], before[path], err_msg=path)
