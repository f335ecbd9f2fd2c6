"""Translators of random weights, exported once for all tests of exports."""

import keras
import pytest
from translators import PAIRS, SIZES, make_latent_model, save_run, with_preferences

from export import export_translation
from vq_keras.data.vocabulary import Vocabulary
from vq_keras.models.transformer import Transformer


@pytest.fixture(scope="session")
def vocabulary():
    return Vocabulary.train(PAIRS, size=290)


@pytest.fixture(scope="session")
def teacher(vocabulary):
    keras.utils.set_random_seed(0)
    return with_preferences(Transformer(vocabulary.size, num_encoder_layers=1, num_decoder_layers=1, **SIZES))


@pytest.fixture(scope="session")
def latent_model(vocabulary):
    return make_latent_model(vocabulary)


@pytest.fixture(scope="session")
def versions(tmp_path_factory, vocabulary, teacher, latent_model):
    """The folder of each export: of ids and of text of both models."""
    found = {}
    for name, model in (("teacher", teacher), ("latent", latent_model)):
        folder = tmp_path_factory.mktemp(name)
        save_run(folder / "run", model, vocabulary)
        for kind, options in (("ids", []), ("text", ["--text"])):
            assert export_translation.main([str(folder / "run"), str(folder / kind), *options]) == 0
            found[name, kind] = folder / kind / "1"
    return found


@pytest.fixture(scope="session")
def exported(versions):
    """The signatures of each export."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401

    return {key: tf.saved_model.load(str(version)).signatures for key, version in versions.items()}
