"""Against vector-quantize-pytorch, an independent implementation, where it is installed (the extra `peers`)."""

import numpy as np
import pytest
from harness import array, call, embeddings_of, make

from vq_keras.bottlenecks import (
    FiniteScalarQuantizer,
    LookupFreeQuantizer,
    ResidualFiniteScalarQuantizer,
    ResidualQuantizer,
)

torch = pytest.importorskip("torch", reason="the extra `peers` is not installed")
peers = pytest.importorskip("vector_quantize_pytorch", reason="the extra `peers` is not installed")


def peer_codebook(layer, embeddings):
    """Puts a quantiser of theirs into the state that `make` gives one of ours: all counts 1."""
    state = layer._codebook
    with torch.no_grad():
        state.embed.copy_(torch.from_numpy(embeddings)[None])
        state.embed_avg.copy_(torch.from_numpy(embeddings)[None])
        state.cluster_size.fill_(1.0)
    return layer


def test_fifty_steps_of_moving_averages(rng):
    codes = rng.normal(size=(32, 6)).astype("float32")
    ours = make(codes, decay=0.8, epsilon=1e-5)
    theirs = peer_codebook(peers.VectorQuantize(dim=6, codebook_size=32, decay=0.8, eps=1e-5).train(), codes)
    for _ in range(50):
        latents = rng.normal(size=(4, 100, 6)).astype("float32")
        outputs = call(ours, latents, training=True)
        quantized, ids, _ = theirs(torch.from_numpy(latents))
        np.testing.assert_array_equal(outputs["codes"], ids.numpy())
        np.testing.assert_allclose(outputs["quantized"], quantized.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(embeddings_of(ours)[0], theirs._codebook.embed[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(array(ours.codebook.counts)[0], theirs._codebook.cluster_size[0].numpy(), rtol=1e-5)


def test_residual_stages(rng):
    tables = [(rng.normal(size=(16, 4)) / 2**i).astype("float32") for i in range(3)]
    ours = ResidualQuantizer([make(table) for table in tables])
    ours.build((None, None, 4))
    theirs = peers.ResidualVQ(dim=4, codebook_size=16, num_quantizers=3).eval()
    for layer, table in zip(theirs.layers, tables, strict=True):
        peer_codebook(layer, table)
    latents = rng.normal(size=(2, 50, 4)).astype("float32")
    outputs = call(ours, latents)
    quantized, ids, _ = theirs(torch.from_numpy(latents))
    np.testing.assert_array_equal(outputs["codes"], ids.numpy())
    np.testing.assert_allclose(outputs["quantized"], quantized.detach().numpy(), atol=1e-5)


def test_ids_of_finite_scalar_quantisation(rng):
    """Both count the first dimension least."""
    levels = (8, 5, 5, 3)
    latents = rng.normal(size=(2, 500, 4)).astype("float32")
    quantized, ids = peers.FSQ(levels=list(levels))(torch.from_numpy(latents))
    ours = FiniteScalarQuantizer(levels)
    ours.build((None, None, 4))
    outputs = call(ours, latents)
    # Theirs widens the range by a thousandth, up to 0.004 of a level: latents so close to an edge may differ.
    bounded = array(ours._bounded(latents))
    inside = np.abs(bounded - np.floor(bounded) - 0.5).min(-1) > 0.005
    assert inside.mean() > 0.95
    np.testing.assert_array_equal(outputs["codes"][inside], ids.numpy()[inside])
    np.testing.assert_allclose(outputs["quantized"][inside], quantized.detach().numpy()[inside], atol=1e-6)


def test_residual_finite_scalar_quantisation(rng):
    """Their bound, levels and order of digits are ours; only a latent on an edge may fall either way."""
    levels, num_stages = (8, 5, 4, 3), 3
    latents = rng.normal(size=(2, 500, 4)).astype("float32")
    theirs = peers.ResidualFSQ(levels=list(levels), num_quantizers=num_stages).eval()
    quantized, ids = theirs(torch.from_numpy(latents))
    ours = ResidualFiniteScalarQuantizer(levels, num_stages=num_stages)
    ours.build((None, None, 4))
    outputs = call(ours, latents)
    same = (outputs["codes"] == ids.numpy()).all(-1)
    # One of 512 cells of a dimension is 4e-3 wide, 1e-7 of rounding a share of 3e-5 of it.
    assert same.mean() > 0.999
    np.testing.assert_allclose(outputs["quantized"][same], quantized.detach().numpy()[same], atol=1e-6)
    decoded = theirs.get_output_from_indices(torch.from_numpy(outputs["codes"]).long())
    np.testing.assert_allclose(array(ours.decode(outputs["codes"])), decoded.numpy(), atol=1e-6)


@pytest.mark.parametrize("spherical", [False, True])
def test_ids_of_lookup_free_quantisation(spherical, rng):
    """Both count the first dimension most."""
    latents = rng.normal(size=(2, 50, 6)).astype("float32")
    theirs = peers.LFQ(codebook_size=64, dim=6, spherical=spherical).eval()
    quantized, ids, _ = theirs(torch.from_numpy(latents))
    ours = LookupFreeQuantizer(64, spherical=spherical)
    ours.build((None, None, 6))
    outputs = call(ours, latents)
    np.testing.assert_array_equal(outputs["codes"], ids.numpy())
    np.testing.assert_allclose(outputs["quantized"], quantized.detach().numpy(), atol=1e-6)
