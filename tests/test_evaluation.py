import io
import json
import math

import keras
import numpy as np
import pytest
import rich.console
from keras import ops
from scipy import special

from vq_keras import bottlenecks, evaluation
from vq_keras.errors import InputError
from vq_keras.evaluation import evaluate, fit_unigram, table, write_json
from vq_keras.likelihoods import Gaussian
from vq_keras.models.image import ImageAutoencoder
from vq_keras.priors import ImageTransformer, PixelCNN
from vq_keras.scoring import Encode

# No latent, a multiple of 1/255, is midway between two of these.
CODEBOOK = np.float32([-0.9137, -0.3071, 0.2113, 0.8059])
NUM_CODES = 4
IMAGE_SHAPE, CODE_SHAPE = (2, 4, 1), (2, 2)
SCALE = 0.4
# What there is of a model with codes and without a bound.
OF_CODES = {name for name in evaluation.LABELS if not name.startswith(("bound", "exact"))}


# A model small enough to be worked out in numpy: a latent is the mean of two neighbouring pixels, the codebook has four
# numbers, and a decoded number is the mean of both pixels.


class Stateless(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.built = True


class PairMeans(Stateless):
    def call(self, images):
        return ops.mean(ops.reshape(ops.cast(images, "float32") / 127.5 - 1, (-1, *CODE_SHAPE, 2)), -1, keepdims=True)


class TwoNearest(Stateless):
    """Hard: the nearest code. Soft: three samples, two of the nearest code and one of the next."""

    num_codes, num_codebooks = NUM_CODES, 1
    passes_straight_through = True
    has_codes, gives_bound = True, False

    def __init__(self, soft):
        super().__init__()
        self.soft = soft

    def _ranked(self, latents):
        return ops.cast(ops.argsort(ops.abs(latents - CODEBOOK), axis=-1), "int32")

    def encode(self, latents):
        return self._ranked(latents)[..., 0]

    def sample(self, latents):
        ranked = self._ranked(latents)
        return ops.concatenate([ranked[..., :2], ranked[..., :1]], axis=-1) if self.soft else ranked[..., :1]

    def decode_samples(self, samples):
        return ops.mean(ops.take(ops.convert_to_tensor(CODEBOOK), samples, axis=0), axis=-1, keepdims=True)


class Doubled(Stateless):
    def call(self, quantized):
        return ops.reshape(ops.repeat(quantized, 2, axis=-1), (-1, *IMAGE_SHAPE))


class Sum(Stateless):
    """Logits at t: a table's row t, plus the mean of the ids at t - 1 for code 0."""

    def __init__(self):
        super().__init__()
        self.table = np.random.default_rng(5).normal(size=(4, NUM_CODES)).astype("float32")

    def nats(self, samples, classes=None):
        before = ops.pad(ops.mean(ops.cast(samples, "float32"), axis=-1)[:, :-1], [[0, 0], [1, 0]])
        logits = self.table + before[..., None] * np.eye(NUM_CODES, dtype="float32")[0]
        log_p = ops.log_softmax(logits, axis=-1)
        return -ops.sum(ops.mean(ops.take_along_axis(log_p, samples, axis=-1), axis=-1), axis=-1)


class StandIn:
    image_shape, code_shape = IMAGE_SHAPE, CODE_SHAPE
    num_classes = None

    def __init__(self, soft=False, predictor=False):
        self.encoder, self.bottleneck, self.decoder = PairMeans(), TwoNearest(soft), Doubled()
        self.likelihood = Gaussian(SCALE)
        self.latent_predictor = Sum() if predictor else None


def make_images(number, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (number, *IMAGE_SHAPE)).astype("uint8")


def split(images, *sizes):
    return [{"images": part} for part in np.split(images, np.cumsum(sizes)[:-1])]


def ranked_codes(images):
    latents = (images.astype("float64") / 127.5 - 1).reshape(-1, 4, 2).mean(-1)
    return np.argsort(np.abs(latents[..., None] - CODEBOOK), axis=-1)


def nats_and_psnr(images, samples):
    """-log p(x | codes) in nats of each image and the PSNR, of samples (b, 4, m)."""
    means = np.repeat(CODEBOOK.astype("float64")[samples].mean(-1), 2, axis=-1).reshape(images.shape)
    z = (images / 127.5 - 1 - means) / SCALE
    half = 1 / 255 / SCALE
    upper = np.where(images == 255, 1, special.ndtr(z + half))
    lower = np.where(images == 0, 0, special.ndtr(z - half))
    levels = np.clip(np.round((means + 1) * 127.5), 0, 255)
    error = ((images - levels) ** 2).mean(axis=(1, 2, 3))
    return -np.log(upper - lower).sum(axis=(1, 2, 3)), 10 * np.log10(255**2 / error)


def predictor_nats(samples):
    before = np.pad(samples.mean(-1)[:, :-1], [[0, 0], [1, 0]])
    logits = Sum().table + before[..., None] * np.eye(NUM_CODES)[0]
    log_p = special.log_softmax(logits, axis=-1)
    return -np.take_along_axis(log_p, samples, -1).mean(-1).sum(-1)


def check_mode(result, mode, nats_x, nats_z):
    # float32 sums of 8 terms.
    bits = np.mean(nats_x) / 8 / math.log(2), np.mean(nats_z) / 8 / math.log(2)
    assert result[f"{mode}_bits_per_dim"] == pytest.approx(sum(bits), rel=1e-5)
    assert result[f"{mode}_bits_per_dim_codes"] == pytest.approx(bits[1], rel=1e-5)
    assert result.get(f"{mode}_bits_per_dim_reconstruction", bits[0]) == pytest.approx(bits[0], rel=1e-5)


@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_every_figure_equals_numpy(soft, predictor):
    images = make_images(11)
    ranked = ranked_codes(images)
    hard = ranked[..., :1]
    samples = ranked[..., [0, 1, 0]] if soft else hard
    # 4, 4 and 3 images: the last batch is smaller, and each image counts the same.
    result = evaluate(StandIn(soft, predictor), split(images, 4, 4, 3))

    (strict_x, psnr), (paper_x, _) = nats_and_psnr(images, hard), nats_and_psnr(images, samples)
    uniform = np.full(len(images), 4 * math.log(NUM_CODES))
    check_mode(result, "strict", strict_x, predictor_nats(hard) if predictor else uniform)
    check_mode(result, "paper", paper_x, predictor_nats(samples) if predictor else uniform)
    assert (abs(result["paper_bits_per_dim"] - result["strict_bits_per_dim"]) > 1e-3) == soft
    assert result["psnr"] == pytest.approx(psnr.mean(), rel=1e-5)

    counts = np.bincount(hard.ravel(), minlength=NUM_CODES)
    shares = counts[counts > 0] / counts.sum()
    assert result["perplexity"] == pytest.approx(np.exp(-np.sum(shares * np.log(shares))), rel=1e-5)
    assert result["codes_in_use"] == len(shares) and result["usage"] == len(shares) / NUM_CODES
    assert result["largest_share"] == pytest.approx(shares.max(), rel=1e-6)
    latents = (images.astype("float64") / 127.5 - 1).reshape(-1, 4, 2).mean(-1)
    distance = np.square(latents - CODEBOOK.astype("float64")[hard[..., 0]]).mean()
    assert result["codebook_distance"] == pytest.approx(distance, rel=1e-5)
    assert result["num_images"] == 11
    assert {type(value) for value in result.values()} == {int, float}
    assert set(result) == OF_CODES - {"unigram_bits_per_dim", "unigram_bits_per_dim_codes"}


def test_a_bottleneck_that_compares_elsewhere_has_no_distance(monkeypatch):
    monkeypatch.setattr(TwoNearest, "passes_straight_through", False)
    assert "codebook_distance" not in evaluate(StandIn(), split(make_images(4), 4))


def test_sizes_of_batches_do_not_matter():
    images = make_images(9)
    expected = evaluate(StandIn(), split(images, 9))
    # Empty ones and one larger than the first; float32 sums in another order.
    assert evaluate(StandIn(), split(images, 0, 4, 0, 5)) == pytest.approx(expected, rel=1e-6)


def test_one_trace_for_a_smaller_last_batch(monkeypatch):
    traced = []
    monkeypatch.setattr(TwoNearest, "encode", lambda self, x, of=TwoNearest.encode: traced.append(1) or of(self, x))
    evaluate(StandIn(), split(make_images(11), 4, 4, 3))
    first = len(traced)
    traced.clear()
    evaluate(StandIn(), split(make_images(4), 4))
    assert len(traced) == first


def test_batches_may_be_backend_tensors():
    images = make_images(4)
    batch = {"images": ops.convert_to_tensor(images), "label": ops.zeros(4)}
    assert evaluate(StandIn(), [batch]) == evaluate(StandIn(), split(images, 4))


def test_unigram_prior():
    train, images, model = make_images(50, seed=1), make_images(7), StandIn(soft=True, predictor=True)
    unigram = fit_unigram(model, split(train, 20, 20, 10))
    codes = ranked_codes(train)[..., 0]
    counts = np.array([[np.sum(codes[:, n] == k) for k in range(NUM_CODES)] for n in range(4)])
    expected = np.log((counts + 0.5) / (50 + 0.5 * NUM_CODES))
    np.testing.assert_allclose(unigram, expected, rtol=1e-12)
    np.testing.assert_allclose(np.exp(unigram).sum(axis=1), 1)

    result = evaluate(model, split(images, 4, 3), unigram)
    hard = ranked_codes(images)[..., 0]
    nats_z = -sum(expected[n, hard[:, n]] for n in range(4))
    check_mode(result, "unigram", nats_and_psnr(images, hard[..., None])[0], nats_z)
    assert set(result) == OF_CODES
    with pytest.raises(InputError, match=r"\(5, 4\), but the model needs \(4, 4\)"):
        evaluate(model, split(images, 7), np.zeros((5, 4)))


def test_samples_differ_from_batch_to_batch():
    # The state of the generator moves on inside the compiled function, on JAX too.
    bottleneck = bottlenecks.SoftEM(num_codes=8, num_samples=3, temperature=100.0, seed=0)
    model = StandIn()
    model.bottleneck = bottleneck
    bottleneck(keras.random.normal((4, *CODE_SHAPE, 1), seed=0))
    encode, images = Encode(model), make_images(64)
    first, second = (encode.predict_on_batch(images)["samples"] for _ in range(2))
    assert first.shape == second.shape == (64, *CODE_SHAPE, 3)
    assert np.mean(first != second) > 0.5


@pytest.mark.slow
def test_image_autoencoder_scores_as_in_its_own_evaluation():
    shape, codes = (8, 8, 1), (2, 2, 10)
    predictor = ImageTransformer(codes, 16, num_layers=1, hidden_dim=16, num_heads=2, feed_forward_dim=16)
    bottleneck = bottlenecks.VectorQuantizer(num_codes=16, seed=0)
    model = ImageAutoencoder(bottleneck, shape, "small", "categorical", predictor)
    images = np.random.default_rng(0).integers(0, 256, (12, *shape)).astype("uint8")
    model.compile("adam")
    model.fit({"images": images}, batch_size=12, verbose=0)
    expected = model.evaluate({"images": images}, batch_size=12, verbose=0, return_dict=True)
    result = evaluate(model, [{"images": images[:8]}, {"images": images[8:]}])
    for name in ("strict_bits_per_dim", "paper_bits_per_dim"):
        assert result[name] == pytest.approx(expected["bits_per_dim"], rel=1e-5)
    for name in ("perplexity", "codebook_distance"):
        assert result[name] == pytest.approx(expected[name], rel=1e-5)
    assert result["codes_in_use"] == expected["codes_in_use"]
    errors = ((images.astype("float64") - ops.convert_to_numpy(model.reconstruct(images))) ** 2).mean(axis=(1, 2, 3))
    assert result["psnr"] == pytest.approx(np.mean(10 * np.log10(255**2 / errors)), rel=1e-5)


def autoencoder(bottleneck):
    return ImageAutoencoder(bottleneck, (8, 8, 1), likelihood="mse")


def test_continuous_latents_have_their_bound_and_nothing_of_codes():
    model = autoencoder(bottlenecks.Gaussian(seed=0))
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 1)).astype("uint8")
    state = ops.convert_to_numpy(model.bottleneck.seed_generator.state)
    result = evaluate(model, [{"images": images}])
    model.bottleneck.seed_generator.state.assign(state)
    terms = model.predict({"images": images}, batch_size=10, verbose=0)
    # 64 sub-pixels and 2 x 2 x 10 latents.
    bits_x, bits_z = terms["nll_x"].mean() / math.log(2), terms["nll_z"].mean() * 40 / 64 / math.log(2)
    assert result["bound_bits_per_dim_reconstruction"] == pytest.approx(bits_x, rel=1e-5)
    assert result["bound_bits_per_dim_latents"] == pytest.approx(bits_z, rel=1e-5)
    assert result["bound_bits_per_dim"] == pytest.approx(bits_x + bits_z, rel=1e-5)
    errors = ((images.astype("float64") - ops.convert_to_numpy(model.reconstruct(images))) ** 2).mean(axis=(1, 2, 3))
    assert result["psnr"] == pytest.approx(np.mean(10 * np.log10(255**2 / errors)), rel=1e-5)
    assert set(result) == {name for name in evaluation.LABELS if name.startswith("bound")} | {"psnr", "num_images"}
    assert result["num_images"] == 10
    # Draws differ from one evaluation to the next.
    assert evaluate(model, [{"images": images}])["bound_bits_per_dim"] != result["bound_bits_per_dim"]
    for refused in (lambda: fit_unigram(model, []), lambda: evaluate(model, [], np.zeros((40, 2)))):
        with pytest.raises(InputError, match="a unigram prior is one of codes"):
            refused()
    with pytest.raises(InputError, match="no images to evaluate"):
        evaluate(model, [])


def test_draws_that_are_certain_make_the_bound_the_strict_figure():
    """Codes far apart are drawn with probability 1: then -log p(x, z) is what each of the draws costs."""
    model = autoencoder(bottlenecks.CategoricalSamples(num_codes=8, num_samples=3, seed=0))
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1)).astype("uint8")
    model.bottleneck.codebook.set(30 * np.random.default_rng(1).normal(size=(8, 8)))
    result = evaluate(model, split(images, 4, 2), fit_unigram(model, split(images, 4, 2)))
    assert result["bound_bits_per_dim"] == pytest.approx(result["strict_bits_per_dim"], rel=1e-5)
    assert result["bound_bits_per_dim_latents"] == pytest.approx(40 * 3 / 64, rel=1e-4)
    assert not [name for name in result if name.startswith("paper")]
    elsewhere = {"codebook_distance"}  # Latents are scored, and not replaced, by the codes.
    assert set(result) == {name for name in evaluation.LABELS if not name.startswith(("paper", "exact"))} - elsewhere


def test_no_images_or_wrong_ones():
    for batches in ([], [{"images": make_images(0)}]):
        with pytest.raises(InputError, match="no images to evaluate"):
            evaluate(StandIn(), batches)
        with pytest.raises(InputError, match="no images to fit"):
            fit_unigram(StandIn(), batches)
    with pytest.raises(InputError, match=r"\(2, 4, 3\), but the model needs \(2, 4, 1\)"):
        evaluate(StandIn(), [{"images": np.zeros((5, 2, 4, 3), "uint8")}])


def test_table_shows_every_figure():
    result = evaluate(StandIn(), split(make_images(5), 5))
    console = rich.console.Console(width=100, file=io.StringIO())
    console.print(table(result))
    text = console.file.getvalue()
    assert f"{result['strict_bits_per_dim']:.4f}" in text and f"{result['psnr']:.2f}" in text
    assert all((label in text) == (name in result) for name, (label, _) in evaluation.LABELS.items() if label[0] != " ")
    # Three lines of heading, one below, and one line for each figure.
    assert len(text.splitlines()) == len(result) + 4


def test_json_is_sorted_rounded_and_replaced_as_a_whole(tmp_path):
    path = tmp_path / "run" / "metrics.json"
    write_json({"psnr": 1.0}, path)
    write_json({"psnr": 24.123456789, "num_images": 3, "bits": np.float64(2) / 3}, path)
    assert path.read_text() == '{\n  "bits": 0.666667,\n  "num_images": 3,\n  "psnr": 24.123457\n}\n'
    with pytest.raises(InputError, match="psnr: not finite"):
        write_json({"psnr": math.nan, "num_images": 3}, path)
    assert json.loads(path.read_text())["num_images"] == 3
    assert [each.name for each in path.parent.iterdir()] == ["metrics.json"]


def test_compression_of_imagenet_in_the_paper():
    # oord2017 section 4.2: 128 x 128 x 3 x 8 bits over 32 x 32 x 9 are 42.6, and 8x8 images as 2x2x1 codes the same.
    model = ImageAutoencoder(bottlenecks.VectorQuantizer(512), (8, 8, 3), latents_per_position=1)
    figures = evaluate(model, [{"images": np.zeros((2, 8, 8, 3), "uint8")}])
    assert figures["compression"] == pytest.approx(128 * 128 * 3 * 8 / (32 * 32 * 9))


def test_a_predictor_of_classes_is_scored_with_those_of_the_images():
    prior = PixelCNN((2, 2, 10), 16, num_layers=1, hidden_dim=8, num_classes=3)
    model = ImageAutoencoder(bottlenecks.VectorQuantizer(16, seed=0), (8, 8, 3), latent_predictor=prior)
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype="uint8")
    classes = np.array([2, 0, 1, 1, 2], "int32")
    model({"images": images, "classes": classes}, training=True)  # The codes start as latents of the first batch.
    batches = [{"images": images[:3], "classes": classes[:3]}, {"images": images[3:], "classes": classes[3:]}]
    figures = evaluate(model, batches, fit_unigram(model, batches))
    codes = ops.convert_to_numpy(model.encode(images)).reshape(5, 40, 1)
    logits = ops.convert_to_numpy(prior({"samples": codes, "classes": classes}))
    nats = -np.take_along_axis(special.log_softmax(logits, axis=-1), codes, -1).sum() / 5
    # float32 sums over 40 codes.
    assert figures["strict_bits_per_dim_codes"] == pytest.approx(nats / 192 / math.log(2), rel=1e-5)
    with pytest.raises(InputError, match="one of classes, but these images have none; give theirs"):
        evaluate(model, [{"images": images}])
