"""What a draft adds to the decoder's input."""

import keras
import numpy as np
import pytest
from compiled import numpy
from keras import ops

from vq_keras.errors import InputError
from vq_keras.layers import TiedEmbedding
from vq_keras.models.draft import Draft


def test_a_share_of_the_sentences_gets_what_was_written_before_the_end():
    keras.utils.set_random_seed(0)
    embedding = TiedEmbedding(7, 4)
    draft = Draft(embedding, share=0.25, seed=0)
    hidden = np.random.default_rng(0).normal(size=(2000, 5, 4)).astype("float32")
    present = np.arange(5) < np.array([5, 3] * 1000)[:, None]
    given = numpy(draft(hidden, present, training=True))
    table, kernel = numpy(embedding.table), numpy(draft.project.kernel)
    tokens = (hidden @ table.T).argmax(-1)
    tokens[~present] = 0
    for row in tokens:
        ends = np.flatnonzero(row == 1)
        row[ends[0] + 1 if len(ends) else 5 :] = 0
    vectors = numpy(embedding(tokens)) * (tokens != 0)[..., None] @ kernel
    chosen = given.any(axis=(1, 2))
    np.testing.assert_allclose(given[chosen], vectors[chosen], atol=1e-6)
    assert chosen.mean() == pytest.approx(0.25, abs=0.04)  # Of 2,000 draws: four standard errors.
    assert not numpy(draft(hidden, present, training=False)).any()


def test_a_share_is_a_share():
    for share in (0, 1):
        with pytest.raises(InputError, match=f"the share of sentences with a draft is {share}; give a number between"):
            Draft(TiedEmbedding(7, 4), share)


def test_no_gradient_goes_through_a_draft():
    embedding = TiedEmbedding(7, 4)
    embedding.build()
    draft = Draft(embedding, share=0.999)

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.before = keras.layers.Dense(4)
            self.draft = draft

        def call(self, x, training=None):
            return self.draft(self.before(x), ops.ones((8, 3), "bool"), training=training)

    model = Model()
    model.compile(keras.optimizers.SGD(1.0), "mse")
    x = np.ones((8, 3, 4), "float32") * np.eye(4, dtype="float32")[2]
    model(x)
    embedding.table.assign(np.eye(7, 4, -3))  # All places write token 5.
    model.before.kernel.assign(np.eye(4))
    kernels = [model.before.kernel, draft.project.kernel]
    before = [numpy(kernel) for kernel in kernels]
    model.train_on_batch(x, x)
    moved = [np.abs(numpy(kernel) - old).max() > 0 for kernel, old in zip(kernels, before, strict=True)]
    assert moved == [False, True]
