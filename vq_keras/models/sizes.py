"""Sizes of translation models by name, as arguments of their constructors."""

from vq_keras.errors import InputError

SIZES = {
    # "base" is that of Vaswani et al. 2017, table 3. "shallow_decoder" moves layers from the decoder, which runs once
    # for each token, to the encoder, which runs once (Kasai et al. 2021, "Deep Encoder, Shallow Decoder"). "small" is
    # for the 29,000 sentences of Multi30k, which larger ones learn by heart (Wu et al. 2021, "Good for Misconceived
    # Reasons").
    "Transformer": {
        "base": {
            "num_encoder_layers": 6,
            "num_decoder_layers": 6,
            "hidden_dim": 512,
            "num_heads": 8,
            "feed_forward_dim": 2048,
        },
        "shallow_decoder": {
            "num_encoder_layers": 12,
            "num_decoder_layers": 1,
            "hidden_dim": 512,
            "num_heads": 8,
            "feed_forward_dim": 2048,
        },
        "small": {
            "num_encoder_layers": 4,
            "num_decoder_layers": 4,
            "hidden_dim": 128,
            "num_heads": 4,
            "feed_forward_dim": 256,
        },
        "small_shallow_decoder": {
            "num_encoder_layers": 12,
            "num_decoder_layers": 1,
            "hidden_dim": 128,
            "num_heads": 4,
            "feed_forward_dim": 256,
        },
    },
    # "base" is the model of roy2018 (section 4.1: the layers and the width of the Transformer base, for each of its
    # three stacks); "small" is for the 29,000 sentences of Multi30k, as above. The "fast" ones have few layers where
    # they run once for each code, or for all slots, and more where they read the source (RESULTS.md has their times).
    "latent Transformer": {
        "base": {
            "num_encoder_layers": 6,
            "num_predictor_layers": 6,
            "num_decoder_layers": 6,
            "hidden_dim": 512,
            "num_heads": 8,
            "feed_forward_dim": 2048,
        },
        "fast": {
            "num_encoder_layers": 12,
            "num_predictor_layers": 1,
            "num_decoder_layers": 2,
            "hidden_dim": 512,
            "num_heads": 8,
            "feed_forward_dim": 2048,
        },
        "small": {
            "num_encoder_layers": 4,
            "num_predictor_layers": 2,
            "num_decoder_layers": 4,
            "hidden_dim": 128,
            "num_heads": 4,
            "feed_forward_dim": 256,
        },
        "small_fast": {
            "num_encoder_layers": 6,
            "num_predictor_layers": 1,
            "num_decoder_layers": 2,
            "hidden_dim": 128,
            "num_heads": 4,
            "feed_forward_dim": 256,
        },
    },
}


def sizes_of(model: str, name: str) -> dict:
    """The sizes of a known model.

    Args:
        model: "Transformer" (`ParallelTransformer` takes them, too) or "latent Transformer".
        name: "base" or "small"; of a Transformer also "shallow_decoder" and "small_shallow_decoder", of a latent one
            "fast" and "small_fast".

    Raises:
        InputError: for an unknown name; the message lists the known ones.

    Example:
        >>> sizes_of("latent Transformer", "small")["num_predictor_layers"]
        2
    """
    known = SIZES[model]
    if name not in known:
        raise InputError(f"there is no {model} {name!r}; the known ones are {', '.join(sorted(known))}.")
    return dict(known[name])
