"""Models that read their slots with n-grams."""

import keras
import numpy as np
import pytest
from compiled import compiled, numpy
from id_rows import VOCABULARY, sentences

from vq_keras import bottlenecks, generation
from vq_keras.errors import InputError
from vq_keras.layers import NGrams
from vq_keras.models.latent_transformer import LatentTransformer
from vq_keras.models.parallel_transformer import ParallelTransformer
from vq_keras.models.slot_reader import read_slots
from vq_keras.search import LatentSearch, ParallelSearch

SIZES = {"num_encoder_layers": 1, "num_decoder_layers": 1, "hidden_dim": 16, "num_heads": 2, "feed_forward_dim": 24}


def fitted():
    rng = np.random.default_rng(0)
    starts = rng.integers(3, VOCABULARY - 8, 200)
    return NGrams.fit([[*range(start, start + rng.integers(1, 8)), 1] for start in starts], VOCABULARY, 3)


def latent(ngrams=None, decoder="ctc"):
    bottleneck = bottlenecks.SoftEM(num_codes=8, num_samples=2)
    return LatentTransformer(
        VOCABULARY, bottleneck, 2, num_predictor_layers=1, decoder=decoder, ngrams=ngrams, dropout=0.0, **SIZES
    )


def parallel(ngrams=None, lengths="ctc"):
    return ParallelTransformer(VOCABULARY, lengths, ngrams=ngrams, dropout=0.0, **SIZES)


def written(model):
    search = LatentSearch(model) if isinstance(model, LatentTransformer) else ParallelSearch(model)
    found = compiled(search)(sentences(9, 9, 3))
    return np.asarray(found["tokens"]), numpy(found["scores"])


def test_slots_are_read_by_the_search_with_the_weights_of_the_ngrams():
    ngrams = fitted()
    ngrams.weight.assign(0.7)
    ngrams.bonus.assign(2.0)
    logits = np.random.default_rng(0).normal(size=(3, 6, VOCABULARY)).astype("float32")
    present = np.arange(6) < np.array([6, 4, 1])[:, None]
    found = read_slots(logits, present, ngrams)
    expected = generation.path_search(logits, present, 1, ngrams, ngrams.beginning(), 0.7, 2.0)
    alone = read_slots(logits, present)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert not np.array_equal(found[0], alone[0])
    np.testing.assert_array_equal(alone[0], generation.best_path(logits, present, 1)[0])


@pytest.mark.parametrize("make", [latent, parallel])
def test_a_model_translates_with_them_and_is_saved_with_them(tmp_path, make):
    model = make()
    table = np.random.default_rng(0).normal(size=model.embedding.table.shape).astype("float32")
    model.embedding.table.assign(table)
    without = written(model)[0]
    model.ngrams = fitted()
    model.ngrams.weight.assign(2.0)
    tokens, scores = written(model)
    assert not np.array_equal(tokens, without)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    assert float(loaded.ngrams.weight) == 2.0
    for one, other in zip(written(loaded), (tokens, scores), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    assert make().ngrams is None and make(fitted()).ngrams.order == 3


def test_another_weight_counts_without_compiling_again():
    model = parallel(fitted())
    table = np.random.default_rng(0).normal(size=model.embedding.table.shape).astype("float32")
    model.embedding.table.assign(table)
    search, source, found = ParallelSearch(model), sentences(9, 9, 3), []
    for bonus in (-9.0, 9.0):
        model.ngrams.bonus.assign(bonus)
        found.append(np.count_nonzero(search.predict_on_batch(source)["tokens"]))
    assert found[0] < found[1] - 5


def test_only_slots_are_read_with_them():
    with pytest.raises(InputError, match="a bidirectional decoder has no slots to read with them"):
        latent(fitted(), "bidirectional")
    with pytest.raises(InputError, match="with lengths 'classifier' there are no slots to read"):
        parallel(fitted(), "classifier")
