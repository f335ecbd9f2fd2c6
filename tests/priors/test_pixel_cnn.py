"""The PixelCNN: exact likelihoods, what each output depends on, cached sampling, training."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from tests.compiled import compiled, numpy
from tests.priors.pixel_cnns import NUM_CODES, conditions_of, inputs, logits_of, make, random_samples
from vq_keras import generation
from vq_keras.bottlenecks import VectorQuantizer
from vq_keras.errors import InputError
from vq_keras.models.image import ImageAutoencoder
from vq_keras.priors import PixelCNN

needs_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="writes a SavedModel")


@pytest.mark.parametrize(
    "code_shape, conditions",
    [((2, 2), {}), ((2, 2), {"num_classes": 3}), ((1, 2, 2), {}), ((2, 2), {"context_shape": (2, 2, 3)})],
)
def test_probabilities_of_all_fields_sum_to_one(code_shape, conditions):
    predictor = make(code_shape, num_codes=3, **conditions)
    fields = np.array(list(itertools.product(range(3), repeat=4)), "int32")[..., None]
    given = conditions_of(predictor, 3)
    for one in range(3 if given else 1):
        same = {name: np.repeat(numpy(values)[one : one + 1], 81, axis=0) for name, values in given.items()}
        x = {"samples": fields, **same} if same else fields
        nats = numpy(predictor.cross_entropy(fields, compiled(predictor)(x)))
        # 81 float32 probabilities.
        assert np.exp(-nats.astype("float64")).sum() == pytest.approx(1.0, abs=1e-5)
        assert nats.std() > 0.1  # and they are not all the same


def receptive_field(code_shape, num_layers, kernel_size):
    """(t, j): whether output t sees code j, by sets that go through the layers of both stacks."""
    rows, columns, depth = (*code_shape, 1)[:3]
    half = kernel_size // 2

    def at(field, i, j):
        return field[i, j] if 0 <= i < rows and 0 <= j < columns else set()

    def layer(field, offsets):
        new = np.empty((rows, columns), object)
        for i, j in np.ndindex(rows, columns):
            new[i, j] = set().union(*(at(field, i + a, j + b) for a, b in offsets))
        return new

    own = np.empty((rows, columns), object)
    for i, j in np.ndindex(rows, columns):
        own[i, j] = {(i * columns + j) * depth + k for k in range(depth)}
    v, h = layer(own, [(-1, 0)]), layer(own, [(0, -1)])
    for _ in range(num_layers):
        v = layer(v, list(itertools.product(range(-half, 1), range(-half, half + 1))))
        h = layer(h, [(0, b) for b in range(-half, 1)])
        for i, j in np.ndindex(rows, columns):
            h[i, j] |= v[i, j]
    sees = np.zeros((rows * columns * depth,) * 2, bool)
    for t in range(len(sees)):
        position = t // depth
        sees[t, list(h[position // columns, position % columns])] = True
        sees[t, position * depth : t] = True
    return sees


@pytest.mark.parametrize(
    "code_shape, num_layers, kernel_size, blind, context_shape",
    [
        ((5, 6), 2, 3, True, None),
        ((4, 5), 4, 3, False, None),
        ((4, 5), 1, 5, True, None),
        ((3, 3, 3), 3, 3, False, None),
        ((4, 5), 2, 3, True, (4, 5, 3)),
    ],
)
def test_logits_depend_on_exactly_the_codes_before_in_the_receptive_field(
    code_shape, num_layers, kernel_size, blind, context_shape
):
    predictor = make(code_shape, num_layers=num_layers, kernel_size=kernel_size, context_shape=context_shape)
    n = int(np.prod(code_shape))
    samples = np.repeat(random_samples(1, code_shape), n + 1, axis=0)
    samples[np.arange(n), np.arange(n)] = (samples[np.arange(n), np.arange(n)] + 1) % NUM_CODES  # row j: code j changed
    x = inputs(predictor, samples)
    if context_shape:
        x["context"] = ops.repeat(x["context"][:1], n + 1, axis=0)
    logits = numpy(compiled(predictor)(x))
    change = np.abs(logits[:-1] - logits[-1]).max(axis=-1).T  # (t, j)

    depends = receptive_field(code_shape, num_layers, kernel_size)
    before = np.tri(n, k=-1, dtype=bool)
    assert not (depends & ~before).any()
    assert (depends == before).all() == (not blind)  # far enough, it is all that comes before
    # Rows of a batch may be rounded differently; a changed code moves logits of order one by more than 3e-5.
    assert change[~depends].max() < 3e-6
    assert change[depends].min() > 3e-5


FIELD = {"context_shape": (3, 4, 2)}
SIZES = [
    ((4, 5), {}),
    ((1, 3), {}),
    ((3, 1, 2), {"num_classes": 3}),
    ((3, 4, 3), {"num_classes": 3}),
    ((2, 3, 2, 2), {}),
    ((3, 4), {"context_shape": (2,)}),
    ((3, 4), FIELD),
    ((3, 4, 2), {"num_classes": 3, **FIELD}),
]


@pytest.mark.parametrize("code_shape, conditions", SIZES)
def test_steps_equal_call(code_shape, conditions):
    predictor, samples = make(code_shape, **conditions), random_samples(3, code_shape)
    step = compiled(predictor.step)
    cache, logits = predictor.init_cache(3, **conditions_of(predictor, 3)), []
    for t in range(samples.shape[1]):
        # What stands in place of a code before the first must not matter.
        before = ops.convert_to_tensor(samples[:, t - 1, 0] if t else [6, 0, -1], "int32")
        y, cache = step(before, ops.convert_to_tensor(t, "int32"), cache)
        logits.append(numpy(y))
    # Logits of order one after two layers in float32.
    np.testing.assert_allclose(np.stack(logits, 1), logits_of(predictor, samples), atol=1e-5)


@pytest.mark.parametrize(
    "code_shape, conditions",
    [((4, 5), {}), ((3, 4, 3), {"num_classes": 3}), ((3, 4), {"context_shape": (2,)}), ((3, 4), FIELD)],
)
def test_cached_sampling_gives_the_codes_of_the_whole_forward_pass(code_shape, conditions):
    predictor, n = make(code_shape, **conditions), int(np.prod(code_shape))
    uniforms = np.random.default_rng(3).random((4, n), dtype="float32")
    temperatures = np.array([1.0, 0.5, 0.0, 1.5], "float32")

    def without_cache(uniforms):
        def step(previous, t, codes):
            codes = ops.where(ops.equal(ops.arange(n), t - 1), previous[:, None], codes)
            return ops.take(predictor(inputs(predictor, codes[..., None])), t, axis=1), codes

        return generation.sample(step, ops.zeros((4, n), "int32"), n, uniforms, temperatures, top_k=5)[0]

    def with_cache(uniforms):
        return predictor.generate(uniforms, temperatures, top_k=5, **conditions_of(predictor, 4))

    codes = numpy(compiled(with_cache)(uniforms))
    assert codes.shape == (4, *code_shape)
    np.testing.assert_array_equal(codes.reshape(4, n), numpy(compiled(without_cache)(uniforms)))
    assert len(np.unique(codes)) > 3  # and they are not all the same


def test_bfloat16_policy_keeps_logits_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    predictor = make((3, 3, 2))
    keras.config.set_dtype_policy("float32")
    samples = random_samples(2, (3, 3, 2))
    logits = predictor(samples)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    # Two layers of bfloat16 (2**-8 relative) on logits of order one.
    np.testing.assert_allclose(numpy(logits), logits_of(make((3, 3, 2)), samples), atol=0.15)
    y, cache = compiled(predictor.step)(samples[:, 0, 0], 0, predictor.init_cache(2))
    assert keras.backend.standardize_dtype(cache["stacks"]["row"].dtype) == "bfloat16"
    assert keras.backend.standardize_dtype(y.dtype) == "float32"
    np.testing.assert_allclose(numpy(y), numpy(logits)[:, 0], atol=0.1)


def test_a_soft_label_is_the_mean_of_its_samples_as_input_and_a_masked_one_a_border():
    predictor, samples = make(), random_samples(2, (4, 5))
    logits = logits_of(predictor, samples)
    np.testing.assert_allclose(logits_of(predictor, np.repeat(samples, 3, axis=-1)), logits, atol=1e-5)
    # Where only the rows that begin above the first code are there, nothing tells them from the first rows.
    lower = np.concatenate([np.full((2, 10, 1), -1, "int32"), samples[:, :10]], axis=1)
    np.testing.assert_allclose(
        logits_of(make(num_layers=1), lower)[:, 15:], logits_of(make(num_layers=1), samples)[:, 5:10], atol=1e-5
    )


def test_keras_file_round_trip_is_bit_equal_and_training_reaches_every_weight(tmp_path):
    predictor = make((3, 3, 2), dropout=0.2, num_classes=3, context_shape=(3, 3, 4))
    predictor.compile(keras.optimizers.Adam(1e-2))
    samples, before = random_samples(8, (3, 3, 2), m=2), predictor.get_weights()
    history = predictor.fit(inputs(predictor, samples), epochs=1, verbose=0).history
    assert set(history) == {"loss", "nll_z"}
    changed = {
        weight.path: (a != b).any()
        for weight, a, b in zip(predictor.weights, before, predictor.get_weights(), strict=True)
    }
    assert all(changed[weight.path] for weight in predictor.trainable_weights)

    path = tmp_path / "predictor.keras"
    predictor.save(path)
    again = keras.saving.load_model(path)
    assert type(again) is PixelCNN
    assert again.get_config() == predictor.get_config()
    np.testing.assert_array_equal(logits_of(again, samples), logits_of(predictor, samples))


def test_is_the_latent_predictor_of_an_autoencoder(tmp_path):
    predictor = make((2, 2, 10), 16, num_layers=1)
    model = ImageAutoencoder(VectorQuantizer(16, seed=0), (8, 8, 3), latent_predictor=predictor)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype("uint8")
    samples = numpy(model.encode(images)).astype("int32").reshape(3, 40, 1)
    expected = numpy(predictor.cross_entropy(samples, logits_of(predictor, samples))) / 40
    outputs = compiled(lambda x: again(x, training=False)["nll_z"])({"images": images})
    np.testing.assert_allclose(numpy(outputs), expected, rtol=1e-4)


@pytest.mark.slow
@needs_tensorflow
def test_tf_serving_can_draw_from_it(tmp_path):
    from vq_keras import saved_model

    predictor = make((2, 3, 2), num_classes=3)
    shapes = {"uniforms": ((None, 12), "float32"), "temperature": ((None,), "float32"), "classes": ((None,), "int32")}
    example = {
        "uniforms": np.random.default_rng(0).random((3, 12), dtype="float32"),
        "temperature": np.ones(3, "float32"),
        "classes": np.array([0, 1, 2], "int32"),
    }
    words = dict.fromkeys((*shapes, "codes"), "as the predictor has them")
    draw = saved_model.Signature(
        lambda uniforms, temperature, classes: {"codes": predictor.generate(uniforms, temperature, classes=classes)},
        shapes,
        "Draws codes.",
        words,
        [example],
    )
    # It is run through a session without XLA before it is kept.
    version = saved_model.write(tmp_path / "predictor", {"draw": draw})

    import tensorflow as tf

    served = tf.saved_model.load(str(version)).signatures["draw"]
    codes = served(**{name: tf.constant(value) for name, value in example.items()})["codes"]
    np.testing.assert_array_equal(codes, numpy(predictor.generate(**example)))


@pytest.mark.slow
def test_learns_a_distribution_of_fields_to_its_entropy():
    # The first row and column are fair coins. Every other code is the exclusive or of those above and to the left, the
    # other way round for the second class, and wrong once in ten: it takes both stacks and the class to know this.
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 2, 4096).astype("int32")
    fields = rng.integers(0, 2, (4096, 4, 4))
    for i, j in itertools.product(range(1, 4), repeat=2):
        fields[:, i, j] = fields[:, i - 1, j] ^ fields[:, i, j - 1] ^ classes ^ (rng.random(4096) < 0.1)
    data = {"samples": fields.reshape(4096, 16, 1).astype("int32"), "classes": classes}
    train, test = ({name: value[part] for name, value in data.items()} for part in (slice(3072), slice(3072, None)))

    predictor = PixelCNN((4, 4), 2, num_layers=2, hidden_dim=16, kernel_size=3, dropout=0.0, num_classes=2)
    predictor.compile(keras.optimizers.Adam(1e-2))
    predictor.fit(train, batch_size=64, epochs=12, verbose=0)
    noise = -0.1 * np.log(0.1) - 0.9 * np.log(0.9)
    entropy = (7 * np.log(2) + 9 * noise) / 16
    # Of 9216 noisy codes the mean has a standard error of 0.004, and what was learnt from 3072 fields another 0.01.
    nll_z = predictor.evaluate(test, batch_size=256, verbose=0, return_dict=True)["nll_z"]
    assert nll_z == pytest.approx(entropy, abs=0.02)

    # What it draws follows the rule as often as it should: 900 codes, five standard errors.
    drawn = numpy(
        compiled(lambda u: predictor.generate(u, classes=np.repeat([0, 1], 50)))(rng.random((100, 16), "float32"))
    )
    drawn = drawn.astype(int)
    wrong = drawn[:, 1:, 1:] ^ drawn[:, :-1, 1:] ^ drawn[:, 1:, :-1] ^ np.repeat([0, 1], 50)[:, None, None]
    assert abs(wrong.mean() - 0.1) < 0.06


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"num_codes": 1}, "num_codes is 1; give at least 2."),
        ({"code_shape": (4, 0, 3)}, r"code_shape is \(4, 0, 3\); give one positive size for each axis."),
        ({"code_shape": (4,)}, r"code_shape is \(4,\); a PixelCNN needs rows and columns."),
        ({"num_layers": 0}, "num_layers is 0; give at least 1."),
        ({"hidden_dim": 0}, "hidden_dim is 0; give at least 1."),
        ({"kernel_size": 4}, "kernel_size is 4; give an odd number of at least 3."),
        ({"dropout": 1.0}, "dropout is 1.0; give a number from 0 up to, not including, 1."),
        ({"num_classes": 0}, "num_classes is 0; give at least 1, or None for no classes."),
        (
            {"context_shape": (5, 4, 3)},
            r"context_shape is \(5, 4, 3\); give \(dim,\) for a vector, or \(4, 5, dim\) for one at each position.",
        ),
        ({"context_shape": (0,)}, r"context_shape is \(0,\); give .*"),
        ({"context_shape": ()}, r"context_shape is \(\); give .*"),
    ],
)
def test_bad_arguments(wrong, sentence):
    with pytest.raises(InputError, match=f"^{sentence}$"):
        make(**wrong)
