"""The input of the latent predictor against its formula in numpy."""

import numpy as np
import pytest
from keras import ops

from vq_keras.priors import CodeEmbedding

SHAPE, NUM_CODES, DIM = (2, 3, 4), 5, 6


def make(num_codebooks):
    embedding = CodeEmbedding(SHAPE, NUM_CODES, num_codebooks, DIM)
    embedding.build()
    return embedding


def expected(embedding, samples):
    codes, start, *axes = (ops.convert_to_numpy(w) for w in embedding.weights)
    batch, length, number = samples.shape
    out = np.zeros((batch, length, DIM))
    for b in range(batch):
        for t in range(length):
            i, j, k = np.unravel_index(t, SHAPE)
            out[b, t] = axes[0][i] + axes[1][j] + axes[2][k]
            if t == 0:
                out[b, t] += start
            else:
                book = (t - 1) % SHAPE[-1] % embedding.num_codebooks
                for code in samples[b, t - 1]:
                    if code >= 0:
                        out[b, t] += codes[book * NUM_CODES + code] / number
    return out


@pytest.mark.parametrize("num_codebooks, number", [(1, 1), (4, 1), (2, 3)])
def test_call_and_step_equal_the_formula(num_codebooks, number):
    embedding = make(num_codebooks)
    samples = np.random.default_rng(0).integers(-1, NUM_CODES, (3, 24, number)).astype("int32")
    # Sums of at most seven float32 numbers of order one.
    reference = expected(embedding, samples)
    np.testing.assert_allclose(ops.convert_to_numpy(embedding(samples)), reference, atol=1e-6)
    for t in (0, 1, 7, 23):
        before = samples[:, t - 1, :1]
        y = embedding.step(before[:, 0], t)
        alone = np.broadcast_to(before[:, :, None], (3, 24, 1))  # only position t - 1 is read
        np.testing.assert_allclose(ops.convert_to_numpy(y), expected(embedding, alone)[:, t], atol=1e-6)


def test_equal_samples_count_as_one():
    embedding = make(1)
    samples = np.random.default_rng(0).integers(0, NUM_CODES, (2, 24, 1)).astype("int32")
    np.testing.assert_allclose(
        ops.convert_to_numpy(embedding(np.repeat(samples, 7, axis=-1))),
        ops.convert_to_numpy(embedding(samples)),
        atol=1e-6,
    )


def test_serialises():
    embedding = make(2)
    again = CodeEmbedding.from_config(embedding.get_config())
    again.build()
    again.set_weights(embedding.get_weights())
    samples = np.zeros((1, 24, 1), "int32")
    np.testing.assert_array_equal(ops.convert_to_numpy(again(samples)), ops.convert_to_numpy(embedding(samples)))
