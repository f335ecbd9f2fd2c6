"""The latent predictor of roy2018 for images: an Image Transformer decoder over the field of codes."""

import math

import keras

from vq_keras.errors import InputError
from vq_keras.layers import TransformerBlock
from vq_keras.priors.code_embedding import CodeEmbedding
from vq_keras.priors.latent_predictor import LatentPredictor, check_field


@keras.saving.register_keras_serializable(package="vq_keras")
class ImageTransformer(LatentPredictor):
    """A `LatentPredictor`: a decoder-only Transformer with local 1-D self-attention (Parmar et al. 2018).

    roy2018, section 5.2, uses six layers of it over 8 x 8 x 10 codes. It departs from the released code of that paper
    in its input: a table of code embeddings and learned positions of its own, for the reasons that `CodeEmbedding`
    gives. Its layers take the dtype policy that is in force when it is made; the logits are always float32.

    Args:
        code_shape: axes of the field of codes, usually (height, width, latents a place); its product is n.
        num_codes: size of a codebook.
        num_codebooks: number of codebooks; the last axis of `code_shape` cycles through them.
        num_layers: number of Transformer blocks.
        hidden_dim: width of the Transformer.
        num_heads: attention heads; must divide `hidden_dim`.
        feed_forward_dim: units of the hidden layer of each feed-forward part.
        block_length: block length of the local attention in codes; a code sees its own block and the one before, so
            half of n or more is full attention.
        dropout: dropout on the embeddings and on the output of each residual branch.

    Shapes:
        input: samples (batch, n, m) int32, m ids for each latent (1 for hard assignments); negative ids are masked
        positions. Output: logits (batch, n, num_codes) float32 of the code at each position given those before it.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> predictor = ImageTransformer((4, 4, 2), num_codes=32, num_layers=2, hidden_dim=32, num_heads=4)
        >>> samples = ops.zeros((8, 32, 1), "int32")
        >>> predictor.cross_entropy(samples, predictor(samples)).shape  # nats of each field
        (8,)
        >>> predictor.generate(keras.random.uniform((3, 32)), temperature=0.9).shape
        (3, 4, 4, 2)
    """

    def __init__(
        self,
        code_shape: tuple,
        num_codes: int,
        num_codebooks: int = 1,
        num_layers: int = 6,
        hidden_dim: int = 512,
        num_heads: int = 8,
        feed_forward_dim: int = 2048,
        block_length: int = 256,
        dropout: float = 0.1,
        **kwargs,
    ):
        code_shape = tuple(code_shape)
        check_field(code_shape, num_codes)
        if num_codebooks < 1 or code_shape[-1] % num_codebooks:
            raise InputError(
                f"num_codebooks is {num_codebooks}; give a divisor of the last axis of code_shape, {code_shape[-1]}."
            )
        if num_layers < 1:
            raise InputError(f"num_layers is {num_layers}; give at least 1.")
        if hidden_dim < 1 or num_heads < 1 or hidden_dim % num_heads:
            raise InputError(f"hidden_dim is {hidden_dim}; give a positive multiple of num_heads, {num_heads}.")

        embedding = CodeEmbedding(code_shape, num_codes, num_codebooks, hidden_dim, name="embedding")
        blocks = [
            TransformerBlock(num_heads, feed_forward_dim, block_length, dropout, name=f"block_{i}")
            for i in range(num_layers)
        ]
        norm = keras.layers.LayerNormalization(epsilon=1e-6, name="norm")
        to_logits = keras.layers.Dense(num_codes, dtype="float32", name="logits")

        samples = keras.Input((math.prod(code_shape), None), dtype="int32", name="samples")
        x = keras.layers.Dropout(dropout, name="embedding_dropout")(embedding(samples))
        for block in blocks:
            x = block(x)
        super().__init__(samples, to_logits(norm(x)), code_shape, num_codes, **kwargs)

        self.num_codebooks = num_codebooks
        self.num_layers = num_layers
        self.hidden_dim = hidden_dim
        self.num_heads = num_heads
        self.feed_forward_dim = feed_forward_dim
        self.block_length = block_length
        self.dropout = dropout
        self.embedding = embedding
        self.blocks = blocks
        self.norm = norm
        self.to_logits = to_logits

    def init_cache(self, batch_size) -> list:
        """The empty cache of `step` for `batch_size` sequences (an int or a scalar tensor)."""
        return [block.init_cache(batch_size, math.prod(self.code_shape)) for block in self.blocks]

    def step(self, codes, position, cache: list) -> tuple:
        """The logits at one position, from the code before it and the cache.

        Args:
            codes: (batch,) int32, the codes at `position` - 1; not read at position 0.
            position: t, an int or an int32 scalar tensor; a sequence goes through 0, 1, 2, ... in order.
            cache: what `init_cache`, or the step before, returned.

        Returns:
            logits (batch, num_codes), equal to the output of the model at this position, and the new cache.
        """
        x = self.embedding.step(codes, position)
        new_cache = []
        for block, block_cache in zip(self.blocks, cache, strict=True):
            x, block_cache = block.step(x, position, block_cache)
            new_cache.append(block_cache)
        return self.to_logits(self.norm(x)), new_cache

    def get_config(self):
        return {
            **super().get_config(),
            "num_codebooks": self.num_codebooks,
            "num_layers": self.num_layers,
            "hidden_dim": self.hidden_dim,
            "num_heads": self.num_heads,
            "feed_forward_dim": self.feed_forward_dim,
            "block_length": self.block_length,
            "dropout": self.dropout,
        }
