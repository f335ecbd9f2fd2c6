"""The loop that predicts the codes of a sentence one by one."""

from keras import ops

from vq_keras import generation


class CodeSearch:
    """Predicts codes from a source alone.

    Not a layer: it holds those of a `LatentTransformer`, which are that model's.

    Args:
        bottleneck: decodes a code to the vector that the predictor reads.
        positions: the `SinusoidalPositions` of the predictor's input.
        predictor: the `TransformerDecoder`.
        to_code_logits: from its output to the codes' logits.

    Example:
        >>> codes, log_probs = model.code_search(memory, mask, num_latents, max_latents=8)
    """

    def __init__(self, bottleneck, positions, predictor, to_code_logits):
        self.bottleneck = bottleneck
        self.positions = positions
        self.predictor = predictor
        self.to_code_logits = to_code_logits

    def __call__(self, memory, mask, num_latents, max_latents: int, beams: int = 1):
        """Codes for sentences.

        Args:
            memory, mask: (batch, n, dim) and bool (batch, n), what the encoder says of the sources.
            num_latents: (batch,) int32, how many for each sentence, at most `max_latents`.
            max_latents: steps of the loop.
            beams: of the search; 1 takes the most likely code each time.

        Returns:
            codes (batch, beams, max_latents) int32, -1 where a sentence has no more, the likeliest first, and their log
            probabilities (batch, beams).
        """
        projected = self.predictor.project_memory(memory)

        def step(previous, position, cache):
            vectors = self.bottleneck.decode(previous[:, None])[:, 0]
            x = ops.where(ops.equal(position, 0), ops.zeros_like(vectors), vectors)
            hidden, cache = self.predictor.step(self.positions.step(x, position), position, cache, projected, mask)
            return self.to_code_logits(hidden), cache

        start = ops.zeros_like(num_latents)
        cache = self.predictor.init_cache(ops.shape(num_latents)[0] * beams, max_latents)
        if beams == 1:
            codes, scores = generation.greedy(step, cache, max_latents, start, lengths=num_latents)
            codes, scores = codes[:, None], scores[:, None]
        else:
            codes, scores = generation.beam_search(step, cache, max_latents, start, beams, lengths=num_latents)
        places = ops.arange(max_latents, dtype="int32")
        return ops.where(places < num_latents[:, None, None], codes, -1), scores
