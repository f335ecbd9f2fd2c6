"""What a translator can take over from its teacher, or from another of its kind."""

from vq_keras.errors import InputError
from vq_keras.layers.stacks import Stack


def start_from(model, teacher) -> None:
    """Gives a `LatentTransformer` or `ParallelTransformer` its teacher's embedding, encoder and decoder to start from.

    They know both languages and how to read the source, so that what is left to learn is to read the codes, and to
    write all words at once. Gu et al. 2018, "Non-Autoregressive Neural Machine Translation", section 5.1, start from
    the teacher's encoder; roy2018 says nothing of it.

    Args:
        model: changed in place.
        teacher: a `Transformer` of the same width and heads, and the same vocabulary. Where it has more layers or
            fewer, layers are left out or taken twice, as in `continue_from`.

    Raises:
        InputError: the sizes are others.

    Example:
        >>> start_from(model, runs.load_judge(Path("runs/numbers-small"), vocabulary))
    """
    pairs = {
        "embedding": (model.embedding, teacher.embedding),
        "encoder": (model.encoder, teacher.encoder),
        "decoder": (model.token_decoder, teacher.decoder),
    }
    _take_over(pairs, "the teacher's {} has other sizes: train both with one width.")


# Not what counts the steps of a run, nor what draws.
PARTS = ("embedding", "encoder", "compressor", "target_encoder", "standardize", "predictor", "to_code_logits")
PARTS += ("length_head", "decompressor", "target_lengths", "decoder", "slots", "draft")


def continue_from(model, trained) -> None:
    """Gives a translator all parts that another one of its kind has, too: to train it further, on other text or
    otherwise.

    Args:
        model: the new `LatentTransformer`, `ParallelTransformer` or `Transformer`; changed in place.
        trained: the other. What it has not, such as the slots of "ctc", stays as it is. Of stacks with other numbers
            of layers, layer i of n is that which stands as far up in `trained`'s m, i m // n: some of them are left out
            (Sanh et al. 2019, DistilBERT, section 3), or taken twice (Gong et al. 2019, "Efficient Training of BERT by
            Progressively Stacking", who repeat the whole stack instead). Its n-grams belong to a text, and stay behind.

    Raises:
        InputError: a part has other sizes.

    Example:
        >>> continue_from(model, runs.load_start("multi30k-en-de-latent", vocabulary, LatentTransformer))
    """
    own, its = (_parts(each) for each in (model, trained))
    pairs = {name: (layer, its[name]) for name, layer in own.items() if name in its}
    _take_over(pairs, "the {} to start from has other sizes: train both with the same options.")


def _take_over(pairs, refusal):
    found = {name: _values(own, its) for name, (own, its) in pairs.items()}
    for name, (own, _) in pairs.items():
        if [weight.shape for weight in own.weights] != [value.shape for value in found[name]]:
            raise InputError(refusal.format(name))
    for name, (own, _) in pairs.items():
        own.set_weights(found[name])


def _values(own, its) -> list:
    """Its weights, a stack's with as many blocks as the own one has."""
    if not isinstance(own, Stack):
        return its.get_weights()
    own_count, its_count = len(own.blocks), len(its.blocks)
    blocks = [its.blocks[i * its_count // own_count] for i in range(own_count)]
    return [value for layer in (*blocks, its.norm) for value in layer.get_weights()]


def _parts(model) -> dict:
    parts = {layer.name: layer for layer in model.layers if layer.name in PARTS}
    if hasattr(model, "bottleneck"):
        parts["bottleneck"] = model.bottleneck  # Its layer has the name of its kind.
    return parts


def freeze_codes(model) -> None:
    """Lets a trained `LatentTransformer` keep its codes while all else is trained further.

    A predictor then learns codes that stay what they are. Trained on predicted codes, the decoder hardly holds them in
    place, and they would go where the predictor likes them best. Only what the embedding learns still moves them a
    little: they are read off its vectors.

    Args:
        model: before it is compiled; changed in place.

    Example:
        >>> freeze_codes(model)
        >>> model.compressor.trainable
        False
    """
    for layer in (model.compressor, model.target_encoder, model.standardize, model.bottleneck):
        if layer is not None:
            layer.trainable = False
