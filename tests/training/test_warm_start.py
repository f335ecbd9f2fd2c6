"""A latent Transformer that starts from its teacher, or from another of its kind."""

import id_rows
import keras
import numpy as np
import pytest
from compiled import compiled, numpy

from vq_keras import bottlenecks
from vq_keras.errors import InputError
from vq_keras.models.latent_transformer import LatentTransformer
from vq_keras.models.transformer import Transformer
from vq_keras.training.warm_start import continue_from, freeze_codes, start_from

SIZES = {"hidden_dim": 16, "num_heads": 2, "feed_forward_dim": 24}


def latent(num_decoder_layers=2, decoder="causal_shifted", **sizes):
    bottleneck = bottlenecks.VectorQuantizer(num_codes=8, initializer="normal")
    sizes = SIZES | sizes
    return LatentTransformer(id_rows.VOCABULARY, bottleneck, 2, 1, 1, num_decoder_layers, decoder=decoder, **sizes)


@pytest.mark.parametrize("decoder", ["causal_shifted", "bidirectional"])
def test_it_reads_the_source_and_writes_as_its_teacher(decoder):
    keras.utils.set_random_seed(0)
    teacher, model = Transformer(id_rows.VOCABULARY, 1, 2, **SIZES), latent(decoder=decoder)
    predictor = [numpy(weight) for weight in model.predictor.weights]
    start_from(model, teacher)
    source = id_rows.sentences(6, 6, 3)
    memories = [numpy(compiled(each.encode)(source)["memory"]) for each in (model, teacher)]
    np.testing.assert_array_equal(*memories)
    for own, its in zip(model.token_decoder.weights, teacher.decoder.weights, strict=True):
        # block_0/attention_norm/gamma of the one is that of the other.
        assert own.path.split("/")[1:] == its.path.split("/")[1:]
        np.testing.assert_array_equal(numpy(own), numpy(its))
    for before, after in zip(predictor, model.predictor.weights, strict=True):
        np.testing.assert_array_equal(before, numpy(after))


@pytest.mark.parametrize(("layers", "taken"), [(1, [0]), (2, [0, 1]), (3, [0, 0, 1]), (4, [0, 0, 1, 1])])
def test_layers_are_left_out_or_taken_twice(layers, taken):
    keras.utils.set_random_seed(0)
    trained, model = latent(2), latent(layers)
    continue_from(model, trained)
    for own, its in zip(model.token_decoder.blocks, taken, strict=True):
        for weight, wanted in zip(own.weights, trained.token_decoder.blocks[its].weights, strict=True):
            np.testing.assert_array_equal(numpy(weight), numpy(wanted))
    for weight, wanted in zip(model.token_decoder.norm.weights, trained.token_decoder.norm.weights, strict=True):
        np.testing.assert_array_equal(numpy(weight), numpy(wanted))


def test_of_four_layers_two_keep_the_first_and_the_third():
    keras.utils.set_random_seed(0)
    teacher, model = Transformer(id_rows.VOCABULARY, 4, 4, **SIZES), latent(2)
    start_from(model, teacher)
    for own, its in ((model.encoder, teacher.encoder), (model.token_decoder, teacher.decoder)):
        step = len(its.blocks) // len(own.blocks)
        for weight, wanted in zip(own.blocks[-1].weights, its.blocks[-step].weights, strict=True):
            np.testing.assert_array_equal(numpy(weight), numpy(wanted))


def test_a_transformer_with_one_decoder_layer_begins_with_the_first_of_another_s():
    keras.utils.set_random_seed(0)
    trained, model = Transformer(id_rows.VOCABULARY, 1, 2, **SIZES), Transformer(id_rows.VOCABULARY, 2, 1, **SIZES)
    continue_from(model, trained)
    pairs = [(model.embedding, trained.embedding), (model.decoder.blocks[0], trained.decoder.blocks[0])]
    pairs += [(block, trained.encoder.blocks[0]) for block in model.encoder.blocks]
    for own, its in pairs:
        for weight, wanted in zip(own.weights, its.weights, strict=True):
            np.testing.assert_array_equal(numpy(weight), numpy(wanted))


def test_a_teacher_of_other_sizes_is_refused_and_nothing_changed():
    teacher, model = Transformer(id_rows.VOCABULARY, 1, 2, **SIZES | {"feed_forward_dim": 32}), latent()
    before = [numpy(weight) for weight in model.weights]
    with pytest.raises(InputError, match="the teacher's encoder has other sizes: train both with one width"):
        start_from(model, teacher)
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(numpy(weight), old)


def test_it_goes_on_from_another_whose_slots_it_has_besides():
    keras.utils.set_random_seed(0)
    trained, model = latent(decoder="bidirectional"), latent(decoder="ctc")
    trained.startup.steps.assign(7)
    slots = [numpy(weight) for weight in model.slots.weights]
    continue_from(model, trained)
    source, target = id_rows.sentences(6, 6, 3), id_rows.sentences(8, 7, 4, seed=1)
    found = [
        compiled(lambda x, m=m: m(x, training=False))({"source": source, "target": target}) for m in (model, trained)
    ]
    for name in ("codes", "nll_z", "nll_length"):
        np.testing.assert_array_equal(*[numpy(each[name]) for each in found])
    memory = [compiled(lambda x, m=m: m.decompressor(x, np.array([2])))(np.ones((1, 2, 16))) for m in (model, trained)]
    np.testing.assert_array_equal(*map(numpy, memory))
    for before, after in zip(slots, model.slots.weights, strict=True):
        np.testing.assert_array_equal(before, numpy(after))
    assert int(model.startup.steps) == 0


def test_another_of_other_sizes_is_refused_and_nothing_changed():
    trained, model = latent(feed_forward_dim=32), latent()
    before = [numpy(weight) for weight in model.weights]
    with pytest.raises(InputError, match="the encoder to start from has other sizes: train both with the same options"):
        continue_from(model, trained)
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(numpy(weight), old)


def test_frozen_codes_stay_while_the_rest_learns():
    keras.utils.set_random_seed(0)
    model = latent(decoder="ctc")
    freeze_codes(model)
    inputs = {"source": id_rows.sentences(6, 6, 3), "target": id_rows.sentences(8, 7, 4, seed=1)}
    parts = (model.compressor, model.standardize, model.bottleneck, model.predictor, model.token_decoder, model.slots)
    before = [[numpy(weight) for weight in part.weights] for part in parts]
    # TensorFlow compiles it for ten times as long as one step takes; JAX would compile each operation alone.
    model.compile(keras.optimizers.Adam(0.01), run_eagerly=keras.backend.backend() == "tensorflow")
    model.train_on_batch(inputs)
    moved = [
        any((numpy(weight) != old).any() for weight, old in zip(part.weights, weights, strict=True))
        for part, weights in zip(parts, before, strict=True)
    ]
    assert moved == [False, False, False, True, True, True]
