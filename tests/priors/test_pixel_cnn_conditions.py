"""The PixelCNN's classes and contexts: what each output knows of them."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.compiled import compiled, numpy
from tests.priors.pixel_cnns import conditions_of, make, random_samples
from vq_keras.errors import InputError


def reached_context(rows, columns, num_layers, kernel_size):
    """(t, j): whether output t sees the context at j, by sets that go through the layers of both stacks."""
    half = kernel_size // 2
    v, h = (np.zeros((rows, columns, rows, columns), bool) for _ in range(2))
    for _ in range(num_layers):
        above, left = v.copy(), h.copy()
        for i, j in np.ndindex(rows, columns):
            v[i, j] = above[max(0, i - half) : i + 1, max(0, j - half) : j + half + 1].any(axis=(0, 1))
            v[i, j, i, j] = True
            h[i, j] = left[i, max(0, j - half) : j + 1].any(axis=0) | v[i, j]
    return h.reshape(rows * columns, rows * columns)


def test_logits_depend_on_exactly_the_context_in_the_receptive_field():
    rows, columns = 4, 6
    predictor, n = make((rows, columns), context_shape=(rows, columns, 3)), rows * columns
    context = np.repeat(numpy(conditions_of(predictor, 1)["context"]), n + 1, axis=0)
    context.reshape(n + 1, n, 3)[np.arange(n), np.arange(n)] += 1.0  # row j: context j changed
    samples = np.repeat(random_samples(1, (rows, columns)), n + 1, axis=0)
    logits = numpy(compiled(predictor)({"samples": samples, "context": context}))
    change = np.abs(logits[:-1] - logits[-1]).max(axis=-1).T  # (t, j)

    depends = reached_context(rows, columns, num_layers=2, kernel_size=3)
    assert not depends.all() and depends.diagonal().all()
    # As for the codes above: rounding of other rows of the batch, and the effect of a changed vector.
    assert change[~depends].max() < 3e-6
    assert change[depends].min() > 3e-5


@pytest.mark.parametrize("context_shape", [(3,), (4, 5, 3)])
def test_the_gradient_reaches_a_context(context_shape):
    predictor = make(context_shape=context_shape)
    given = keras.Input((), dtype="int32", name="given")
    made = keras.layers.Embedding(2, int(np.prod(context_shape)), embeddings_initializer="normal")
    samples = keras.Input((20, None), dtype="int32", name="samples")
    context = ops.reshape(made(given), (-1, *context_shape))
    model = keras.Model([samples, given], predictor({"samples": samples, "context": context}))
    model.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy")
    before = made.get_weights()[0]
    codes = random_samples(4, (4, 5))
    model.train_on_batch([codes, np.zeros(4, "int32")], codes)
    change = np.abs(made.get_weights()[0] - before)
    assert change[0].min() > 1e-7  # every element of the context that was there
    assert change[1].max() == 0.0


def test_every_logit_depends_on_the_class():
    predictor = make((3, 3, 2), num_classes=3)
    samples = np.repeat(random_samples(1, (3, 3, 2)), 3, axis=0)
    logits = numpy(compiled(predictor)({"samples": samples, "classes": np.array([0, 0, 2], "int32")}))
    np.testing.assert_allclose(logits[1], logits[0], atol=3e-6)  # rows of a batch may be rounded differently
    assert np.abs(logits[2] - logits[0]).min(axis=-1).min() > 1e-5


def test_classes_and_contexts_have_to_be_given_where_there_are_some_and_only_there():
    uniforms = np.zeros((2, 20), "float32")
    with pytest.raises(InputError, match=r"^this PixelCNN has classes; give one for each sample\.$"):
        make(num_classes=3).generate(uniforms)
    with pytest.raises(InputError, match=r"^this PixelCNN has no classes; leave them out\.$"):
        make().generate(uniforms, classes=[0, 1])
    with pytest.raises(InputError, match=r"^this PixelCNN has a context; give one for each sample\.$"):
        make(context_shape=(3,)).generate(uniforms)
    with pytest.raises(InputError, match=r"^this PixelCNN has no context; leave it out\.$"):
        make().generate(uniforms, context=np.zeros((2, 3), "float32"))
