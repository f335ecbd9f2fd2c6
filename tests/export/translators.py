"""Translators of random weights, and the folders of their runs."""

import keras
import numpy as np

from vq_keras.bottlenecks import VectorQuantizer
from vq_keras.data.translation_data import Pairs
from vq_keras.data.vocabulary import EOS, FILE
from vq_keras.models.latent_transformer import LatentTransformer
from vq_keras.models.transformer import Transformer
from vq_keras.training import runs

PAIRS = Pairs(["two books", "the old house"] * 3, ["zwei Bücher", "das alte Haus"] * 3)
SIZES = {"hidden_dim": 16, "num_heads": 2, "feed_forward_dim": 24}
MAX_LENGTH = 12


def save_run(folder, model, vocabulary):
    runs.claim(folder, {"vocabulary": vocabulary.fingerprint, "max_length": MAX_LENGTH, "dataset": "files"})
    vocabulary.save(folder / FILE)
    (folder / runs.METRICS).write_text('{"greedy": {"bleu": 12.5}}')
    runs.save_model(model, folder)


def make_latent_model(vocabulary):
    keras.utils.set_random_seed(1)
    bottleneck = VectorQuantizer(5, initializer="normal", seed=0)
    layers = {"num_encoder_layers": 1, "num_predictor_layers": 1, "num_decoder_layers": 1}
    model = LatentTransformer(vocabulary.size, bottleneck, 2, decoder="ctc", **layers, **SIZES)
    return with_preferences(model)


def with_preferences(model):
    """An untrained model hardly has any; and the table that embeds a token would make it predict itself."""
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        scale = 2.0 * weight.shape[0] ** -0.5 if len(weight.shape) == 2 else 0.2
        weight.assign(rng.normal(weight.name == "gamma", scale, weight.shape))
    decoder = model.decoder if isinstance(model, Transformer) else model.token_decoder
    decoder.norm.gamma.assign(rng.normal(0.0, 1.0, 16))
    table = rng.normal(0.0, 1.0, model.embedding.table.shape)
    table[EOS] *= 1.5  # Ends sometimes.
    model.embedding.table.assign(table)
    return model
