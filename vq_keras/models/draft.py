"""A parallel decoder that reads what it wrote, and writes again."""

import keras
from keras import ops

from vq_keras import generation
from vq_keras.data.vocabulary import EOS, PAD
from vq_keras.errors import InputError


@keras.saving.register_keras_serializable(package="vq_keras")
class Draft(keras.layers.Layer):
    """What a decoder's own words add to its input for another pass: iterative refinement (Lee et al. 2018).

    Tokens that are written all at once do not know of each other, so that a word may stand there twice, or not at all.
    A decoder that reads its draft sees that. It learns so from the drafts of the same step: `call` gives a share of
    the sentences the vectors of what was written first, and nothing to the others, whose first pass is trained by them
    (Lee et al. 2018, "Deterministic Non-Autoregressive Neural Sequence Modeling by Iterative Refinement", section 3,
    who train all passes on each sentence and corrupt targets besides). No gradient goes through a draft.

    Args:
        embedding: the `TiedEmbedding` of the tokens.
        share: the expected share of sentences with a draft in training, above 0 and below 1.
        seed: of their choice.

    Shapes:
        the decoder's output (batch, n, dim) and the bool mask (batch, n) of the places that a sentence has; output
        like the former, zero where there is no draft, and in evaluation everywhere.

    Raises:
        InputError: share is out of range.

    Example:
        >>> draft = Draft(embedding, share=0.5)
        >>> x = x + draft(decoder(x), present, training=True)
    """

    def __init__(self, embedding, share: float, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        if not 0 < share < 1:
            raise InputError(f"the share of sentences with a draft is {share}; give a number between 0 and 1.")
        self.supports_masking = True
        self.embedding = embedding
        self.share = share
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.project = keras.layers.Dense(embedding.dim, use_bias=False, dtype=self.dtype_policy, name="project")

    def build(self, *_):
        self.project.build((None, None, self.embedding.dim))

    def read(self, tokens):
        """The vectors of tokens (batch, n), zero where they are padding."""
        present = ops.cast(ops.not_equal(tokens, PAD), self.compute_dtype)[..., None]
        return self.project(self.embedding(tokens) * present)

    def call(self, hidden, present, training=None):
        if not training:
            return ops.zeros_like(hidden)
        tokens, _ = generation.parallel(self.embedding(ops.stop_gradient(hidden), reverse=True), present, EOS)
        drawn = keras.random.uniform((ops.shape(hidden)[0], 1, 1), dtype="float32", seed=self.seed_generator)
        return ops.where(drawn < self.share, self.read(ops.stop_gradient(tokens)), ops.zeros_like(hidden))

    def compute_output_spec(self, hidden, present, training=None):
        return keras.KerasTensor(hidden.shape, dtype=hidden.dtype)
