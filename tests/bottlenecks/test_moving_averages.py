"""The M step: counts, sums and embeddings against worked numbers, and what has to hold for any batch."""

import numpy as np
import pytest
from harness import array, assert_same_state, call, compiled, embeddings_of, gradients, make, state
from numpy_codebook import nearest

from vq_keras.bottlenecks import SoftEM, VectorQuantizer

CODES = [[0.0, 0.0], [4.0, 0.0]]
LATENTS = np.array([[1.0, 0.0], [-1.0, 2.0], [5.0, 1.0]], "float32")


def numbers(layer):
    """Counts, sums and embeddings of the first codebook."""
    return array(layer.codebook.counts)[0], array(layer.codebook.sums)[0], embeddings_of(layer)[0]


def test_two_steps_by_hand():
    layer = make(CODES, decay=0.5, commitment_weight=1.0)
    outputs = call(layer, LATENTS, training=True)
    np.testing.assert_array_equal(outputs["codes"], [0, 0, 1])
    np.testing.assert_array_equal(outputs["samples"], [[0], [0], [1]])
    # Of the codes before the step: (1 + 0 + 1 + 4 + 1 + 1) / 6.
    assert outputs["loss"] == pytest.approx(4 / 3, rel=1e-6)
    counts, sums, embeddings = numbers(layer)
    np.testing.assert_allclose(counts, [1.5, 1.0])
    np.testing.assert_allclose(sums, [[0, 1], [4.5, 0.5]])
    np.testing.assert_allclose(embeddings, [[0, 2 / 3], [4.5, 0.5]], rtol=1e-6)

    np.testing.assert_array_equal(call(layer, LATENTS, training=True)["codes"], [0, 0, 1])
    counts, sums, embeddings = numbers(layer)
    np.testing.assert_allclose(counts, [1.75, 1.0])
    np.testing.assert_allclose(sums, [[0, 1.5], [4.75, 0.75]])
    np.testing.assert_allclose(embeddings, [[0, 0.857143], [4.75, 0.75]], atol=1e-6)


def test_laplace_smoothing_by_hand():
    layer = make(CODES, decay=0.5, epsilon=1e-5)
    call(layer, LATENTS, training=True)
    # (1.5 + 1e-5) / (2.5 + 2e-5) 2.5 = 1.4999980 and (1 + 1e-5) / (2.5 + 2e-5) 2.5 = 1.0000020.
    np.testing.assert_allclose(embeddings_of(layer)[0], [[0, 0.666668], [4.499991, 0.499999]], atol=6e-7)


@pytest.mark.parametrize(("num_latents", "decay"), [(6, 0.95), (36, 0.8), (0, 1.0)])
def test_decay_by_the_number_of_latents(num_latents, decay):
    """Of 4 mature codes: 1 - min(n / (30 K), 1 / 5); what is masked is no latent."""
    layer = make(np.eye(4), decay=None)
    mask = np.arange(40) < num_latents
    call(layer, np.tile(np.eye(4)[:1], (40, 1)).astype("float32"), mask=mask, training=True)
    counts = array(layer.codebook.counts)[0]
    np.testing.assert_allclose(counts, [decay + (1 - decay) * num_latents, decay, decay, decay], rtol=1e-6)


def test_a_young_codebook_averages_over_less(rng):
    """4 codes that begin on 2 latents: half of one for each at first, all of them for the first code from then on."""
    latents = np.array([[1.0], [0.0]], "float32")
    layer = VectorQuantizer(4, restart_threshold=0.0, seed=0)
    call(layer, latents, training=True)
    layer.codebook.anchors.assign([[[0.0], [9.0], [9.0], [9.0]]])
    layer.codebook.sums.assign([[[0.0], [4.5], [4.5], [4.5]]])
    layer.codebook.counts.assign([[0.5] * 4])
    window, count = 2 + 0.25 * 0.5, 0.5
    for step in range(240):
        call(layer, 0 * latents, training=True)
        decay = 1 - min(0.5 / window, 0.2)
        window, count = min(window + 0.25 * 0.5, 30), decay * count
        if step in (0, 20, 239):
            np.testing.assert_allclose(array(layer.codebook.counts)[0, 1:], count, rtol=1e-4)
    assert window == 30 and array(layer.codebook.maturity) == pytest.approx(1)


def test_smoothing_moves_no_mass(rng):
    layer = make(rng.normal(size=(16, 3)), decay=0.9, epsilon=0.3)
    call(layer, rng.normal(size=(40, 3)).astype("float32"), training=True)
    counts, sums, embeddings = numbers(layer)
    # e = sums / c: the smoothed counts c are read off the state, and add up to the counts.
    np.testing.assert_allclose((sums / embeddings).mean(-1).sum(), counts.sum(), rtol=1e-4)
    assert counts.sum() == pytest.approx(0.9 * 16 + 0.1 * 40, rel=1e-6)


def test_a_code_without_latents_stays_and_its_count_decays():
    layer = make([[0.0, 0.0], [4.0, 0.0], [100.0, -70.0]], counts=[1.0, 2.0, 3.0], decay=0.9)
    for _ in range(7):
        call(layer, LATENTS, training=True)
    counts, _, embeddings = numbers(layer)
    assert counts[2] == pytest.approx(3 * 0.9**7, rel=1e-6)
    # Both sums and counts are rounded at each of the 7 steps.
    np.testing.assert_allclose(embeddings[2], [100.0, -70.0], rtol=14 * 2**-24)


def test_decay_0_is_a_step_of_lloyds_algorithm(rng):
    start, latents = rng.normal(size=(8, 2)), rng.normal(size=(200, 2)).astype("float32")
    start[7] = [50.0, 50.0]  # This one gets nothing, and stays.
    layer = make(start, decay=0.0)
    codes = call(layer, latents, training=True)["codes"]
    np.testing.assert_array_equal(codes, nearest(latents, start.astype("float32")))
    for code in range(7):
        np.testing.assert_allclose(embeddings_of(layer)[0, code], latents[codes == code].mean(0), atol=1e-5)
    np.testing.assert_array_equal(embeddings_of(layer)[0, 7], [50.0, 50.0])


@pytest.mark.parametrize("initializer", ["normal", "samples", "kmeans"])
def test_the_first_step_is_safe_with_many_more_codes_than_latents(initializer, rng):
    latents = rng.normal(size=(6, 4)).astype("float32")
    layer = make(rng.normal(size=(512, 4)), initializer=initializer, epsilon=1e-5)
    if initializer != "normal":
        layer.codebook.maturity.assign(0.0)
    largest = max(np.linalg.norm(latents, axis=-1).max(), np.linalg.norm(embeddings_of(layer), axis=-1).max())
    call(layer, latents, training=True)
    norms = np.linalg.norm(embeddings_of(layer)[0], axis=-1)
    # Counts of zero would divide unhit codes by epsilon; corrected averages of zero would put them to zero.
    assert norms.max() <= largest * (1 + 1e-4)
    assert norms.min() > 1e-3


@pytest.mark.parametrize("kind", ["vector_quantizer", "soft_em"])
def test_the_output_is_made_of_the_codes_before_the_step(kind, rng):
    before = rng.normal(size=(5, 3)).astype("float32")
    arguments = {"kind": SoftEM, "num_samples": 1} if kind == "soft_em" else {}
    layer = make(before, decay=0.5, **arguments)
    outputs = call(layer, rng.normal(size=(20, 3)).astype("float32"), training=True)
    assert not np.allclose(before, embeddings_of(layer)[0])
    np.testing.assert_array_equal(outputs["quantized"], before[outputs["samples"][:, 0]])


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_what_moves_the_state(update, rng):
    latents = rng.normal(size=(20, 3)).astype("float32")
    layer = make(rng.normal(size=(5, 3)), update=update, restart_threshold=0.1)
    before = state(layer)
    for training in (False, None):
        for _ in range(5):
            assert call(layer, latents, training=training)["loss"] > 0
        assert_same_state(state(layer), before)
    layer.encode(latents), layer.sample(latents), layer.decode([[1, 2], [3, 4]])
    assert_same_state(state(layer), before)

    layer.trainable = False
    call(layer, latents, training=True)
    assert_same_state(state(layer), before)

    layer.trainable = True
    moving = ["counts", "sums", "embeddings"] if update == "ema" else ["counts"]
    for _ in range(3):
        call(layer, latents, training=True)
        after = state(layer)
        assert all(not np.array_equal(after[f"codebook/{name}"], before[f"codebook/{name}"]) for name in moving)
        before = after


def test_only_gradient_updates_leave_something_to_the_optimizer(rng):
    codes, latents = rng.normal(size=(5, 3)), rng.normal(size=(20, 3)).astype("float32")
    assert make(codes).trainable_variables == []
    assert make(codes, kind=SoftEM).trainable_variables == []
    layer = make(codes, update="gradient", codebook_weight=1.0, commitment_weight=0.0)
    assert [variable.name for variable in layer.trainable_variables] == ["displacement"]
    # A step along the gradient moves every code that was hit towards the mean of its latents.
    before = embeddings_of(layer)[0]
    _, [gradient] = gradients(layer, latents)
    layer.codebook.displacement.assign(layer.codebook.displacement - 5.0 * gradient)
    hit = nearest(latents, before)
    for code in set(hit):
        target = latents[hit == code].mean(0)
        assert np.linalg.norm(embeddings_of(layer)[0, code] - target) < np.linalg.norm(before[code] - target)


def test_counts_follow_the_batch_under_gradient_updates():
    layer = make(CODES, update="gradient", decay=0.5)
    call(layer, LATENTS, training=True)
    np.testing.assert_allclose(array(layer.codebook.counts), [[1.5, 1.0]])
    np.testing.assert_array_equal(embeddings_of(layer)[0], CODES)


def test_600_compiled_steps_reach_the_closed_form(rng):
    layer = make(rng.normal(size=(2, 2)), decay=0.99)
    latents = np.tile(embeddings_of(layer)[0, :1], (4096, 1))
    step = compiled(layer)
    for _ in range(600):
        step(latents)
    # 4096 - (4096 - 1) 0.99^600, and float32 rounding of 600 steps.
    np.testing.assert_allclose(array(layer.codebook.counts)[0], [4086.151, 0.99**600], rtol=2e-5)
