"""A trained `Transformer` as a model of CTranslate2, an engine in C++ that runs translators without TensorFlow."""

import os
import shutil
from pathlib import Path

import keras
from keras import ops

from vq_keras.data.vocabulary import FILE, Vocabulary
from vq_keras.errors import InputError
from vq_keras.layers import SinusoidalPositions
from vq_keras.models.transformer import Transformer

# Twice the longest source that CTranslate2 takes unless it is told otherwise. Positions are a table there.
MAX_POSITIONS = 2048


def write(directory, model: Transformer, vocabulary: Vocabulary) -> None:
    """Writes a folder that `ctranslate2.Translator` loads, with the vocabulary beside it.

    Weights are float32; the engine makes others of them when it loads (`compute_type="int8"`). Sources are the pieces
    of the vocabulary, without an end: the engine adds it.

    The engine computes the same logits, but for rounding. Its greedy search (`beam_size=1`) is ours, but for the last
    of these points; its beam search is another one by all of them:

    - Length. Ours compares log p / ((5 + n) / 6)^a, where n counts the end; the engine compares log p / n^a, where n
      counts it only with `return_end_token=True`. They are one for a = 0 alone; the engine's default is a = 1.
    - Stopping. Ours stops when no open sequence could become the result. So does the engine for a = 0; otherwise it
      stops once `beam_size * patience` sequences have ended, however good they are.
    - Ends. Of the 2 `beam_size` likeliest continuations of a step, ours keeps every one that ends, the engine those
      among the first `beam_size`.
    - Limits. Ours takes the source's length plus 50, and its beam search ends what comes so far, at the probability
      of that end. The engine takes `max_decoding_length`, 256 by default, and cuts off.

    With a = 0 and no such limit, ends that rank low are all that is left; ours is the likelier translation then.

    Args:
        directory: a folder that does not exist yet.
        model: the trained model.
        vocabulary: that of the model.

    Raises:
        InputError: where CTranslate2 is not installed, the model is another one, the folder is there or cannot be
            written.

    Example:
        >>> write("exports/teacher", model, vocabulary)
        >>> translator = ctranslate2.Translator("exports/teacher")
        >>> translator.translate_batch([["▁two", "▁books"]], beam_size=4)[0].hypotheses
        [['▁zwei', '▁Bücher']]
    """
    directory = Path(directory)
    if not isinstance(model, Transformer):
        raise InputError(f"CTranslate2 has autoregressive Transformers alone: the model is a {type(model).__name__}.")
    if directory.exists():
        raise InputError(f"{directory} is there already; give a folder that does not exist yet.")
    specification = _specification(model, vocabulary)
    aside = directory.with_name(f".{directory.name}.writing-{os.getpid()}")
    try:
        aside.mkdir(parents=True)
        specification.save(str(aside))
        vocabulary.save(aside / FILE)
        os.rename(aside, directory)
    except OSError as error:
        raise InputError(f"{directory} cannot be written ({error.strerror}); give another folder.") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _specification(model, vocabulary):
    """The model in the engine's own layout, complete and checked by it."""
    try:
        from ctranslate2.specs import TransformerSpec
    except ImportError as error:
        raise InputError(f"CTranslate2 is not there ({error}): pip install 'vq_keras[ctranslate2]'.") from error

    layers = (model.num_encoder_layers, model.num_decoder_layers)
    # As ours by default: norms before the branches and at the end of the stacks, ReLU, embeddings times sqrt(dim).
    specification = TransformerSpec.from_config(layers, model.num_heads)
    table = _array(model.embedding.table)
    positions = SinusoidalPositions(dtype="float32")(ops.zeros((1, MAX_POSITIONS, model.hidden_dim)))[0]
    (source_embeddings,) = specification.encoder.embeddings
    source_embeddings.weight = specification.decoder.embeddings.weight = specification.decoder.projection.weight = table
    for theirs, ours in ((specification.encoder, model.encoder), (specification.decoder, model.decoder)):
        theirs.position_encodings.encodings = _array(positions)
        _set_norm(theirs.layer_norm, ours.norm)
        for their_block, our_block in zip(theirs.layer, ours.blocks, strict=True):
            _set_block(their_block, our_block)

    pieces = vocabulary.pieces
    specification.register_source_vocabulary(pieces)
    specification.register_target_vocabulary(pieces)
    config = specification.config
    config.layer_norm_epsilon = model.encoder.norm.epsilon
    config.bos_token = config.decoder_start_token = config.eos_token  # "</s>", as ours.
    config.add_source_eos = True
    specification.validate()
    specification.optimize()  # Writes the table once.
    return specification


def _set_block(theirs, ours):
    attention = ours.attention
    _set_norm(theirs.self_attention.layer_norm, ours.attention_norm)
    _set_dense(theirs.self_attention.linear, (attention.project_in, attention.project_out))
    if hasattr(ours, "cross_attention"):
        attention = ours.cross_attention
        projections = (attention.project_queries, attention.project_keys_and_values, attention.project_out)
        _set_norm(theirs.attention.layer_norm, ours.cross_attention_norm)
        _set_dense(theirs.attention.linear, projections)
    _set_norm(theirs.ffn.layer_norm, ours.feed_forward_norm)
    _set_dense((theirs.ffn.linear_0, theirs.ffn.linear_1), (ours.expand, ours.contract))


def _set_norm(theirs, ours):
    theirs.gamma, theirs.beta = _array(ours.gamma), _array(ours.beta)


def _set_dense(theirs, ours):
    for linear, dense in zip(theirs, ours, strict=True):
        linear.weight = _array(dense.kernel).T
        if dense.use_bias:
            linear.bias = _array(dense.bias)


def _array(x):
    return keras.ops.convert_to_numpy(x).astype("float32")
