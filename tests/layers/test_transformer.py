"""The Transformer block against its formula in numpy."""

import keras
import numpy as np
import pytest
from keras import ops

from vq_keras.errors import InputError
from vq_keras.layers import TransformerBlock


def make(dropout=0.0, **kwargs):
    block = TransformerBlock(num_heads=2, feed_forward_dim=12, block_length=4, dropout=dropout, **kwargs)
    block.build((None, 19, 8))
    # Norms that scale and shift, and biases that are not zero, so that the test sees where they stand.
    rng = np.random.default_rng(0)
    for weight in block.weights:
        if len(weight.shape) == 1:
            weight.assign(weight + 0.1 * rng.normal(size=weight.shape))
    return block


def inputs():
    return np.random.default_rng(1).normal(size=(3, 19, 8)).astype("float32")


def output(block, x):
    """In one compilation on JAX, where eager code compiles every operation for itself."""

    def run(x):
        return ops.cast(block(x), "float32")

    if keras.backend.backend() == "jax":
        import jax

        run = jax.jit(run)
    return ops.convert_to_numpy(run(x))


def norm(x, layer):
    gamma, beta = (ops.convert_to_numpy(w) for w in layer.weights)
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * gamma + beta


def dense(x, layer):
    kernel, bias = (ops.convert_to_numpy(w) for w in layer.weights)
    return x @ kernel + bias


def test_is_the_pre_norm_residual_block():
    block, x = make(), inputs()
    attended = ops.convert_to_numpy(block.attention(norm(x, block.attention_norm).astype("float32")))
    expected = x + attended
    hidden = np.maximum(dense(norm(expected, block.feed_forward_norm), block.expand), 0)
    expected = expected + dense(hidden, block.contract)
    # Numbers of order one through two norms and three products in float32.
    np.testing.assert_allclose(output(block, x), expected, atol=1e-5)


def test_steps_equal_call():
    block, x = make(), inputs()
    cache, outputs = block.init_cache(3, 19), []
    for t in range(19):
        y, cache = block.step(x[:, t], t, cache)
        outputs.append(ops.convert_to_numpy(y))
    np.testing.assert_allclose(np.stack(outputs, 1), output(block, x), atol=5e-6)


def test_dropout_falls_on_both_branches_in_training_only():
    block, x = make(dropout=0.5), inputs()
    np.testing.assert_array_equal(ops.convert_to_numpy(block(x)), ops.convert_to_numpy(block(x, training=False)))
    for branch in ("attention", "contract"):
        layer = getattr(block, branch)
        saved = layer.get_weights()
        other = block.contract if branch == "attention" else block.attention
        kept = other.get_weights()
        other.set_weights([np.zeros_like(w) for w in kept])
        change = ops.convert_to_numpy(block(x, training=True)) - x
        # Half of 456 units: five standard deviations of the binomial are 0.12.
        assert abs((change == 0).mean() - 0.5) < 0.12
        other.set_weights(kept)
        layer.set_weights(saved)


def test_serialises():
    block = make(dropout=0.1)
    again = TransformerBlock.from_config(block.get_config())
    again.build((None, 19, 8))
    again.set_weights(block.get_weights())
    np.testing.assert_array_equal(output(again, inputs()), output(block, inputs()))


def test_bfloat16_policy():
    keras.config.set_dtype_policy("mixed_bfloat16")
    block = make()
    y = output(block, inputs())
    assert keras.backend.standardize_dtype(block(inputs()).dtype) == "bfloat16"
    keras.config.set_dtype_policy("float32")
    exact = make()
    exact.set_weights(block.get_weights())
    # Each addition to numbers up to 4 rounds by 2**-7 at most, and the branches carry about as much error.
    np.testing.assert_allclose(y, output(exact, inputs()), atol=0.06)


@pytest.mark.parametrize("wrong", [{"feed_forward_dim": 0}, {"dropout": 1.0}, {"dropout": -0.1}, {"block_length": 0}])
def test_bad_arguments(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        TransformerBlock(**{"num_heads": 2, "feed_forward_dim": 12, "block_length": 4, **wrong})
