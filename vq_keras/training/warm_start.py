"""What a latent Transformer can take over from its teacher."""

from vq_keras.errors import InputError


def start_from(model, teacher) -> None:
    """Gives a `LatentTransformer` its teacher's embedding, encoder and decoder to start from.

    They know both languages and how to read the source, so that what is left to learn is to read the codes, and to
    write all words at once. Gu et al. 2018, "Non-Autoregressive Neural Machine Translation", section 5.1, start from
    the teacher's encoder; roy2018 says nothing of it.

    Args:
        model: the `LatentTransformer`; changed in place.
        teacher: a `Transformer` with as many encoder and decoder layers of the same sizes, and the same vocabulary.

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
    for name, (own, its) in pairs.items():
        if [weight.shape for weight in own.weights] != [weight.shape for weight in its.weights]:
            raise InputError(f"the teacher's {name} has other sizes: train both with one architecture.")
    for own, its in pairs.values():
        own.set_weights(its.get_weights())
