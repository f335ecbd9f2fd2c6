"""The formulas of both papers once more, in float64 numpy and in the most direct way."""

import numpy as np


def squared_distances(latents, embeddings):
    """(n, dim) and (num_codes, dim) -> (n, num_codes), from the differences and not from an expansion."""
    rows = [((latent - embeddings) ** 2).sum(-1) for latent in latents.astype("float64")]
    return np.array(rows).reshape(len(latents), len(embeddings))


def nearest(latents, embeddings):
    return squared_distances(latents, np.asarray(embeddings, "float64")).argmin(-1)


def probabilities(latents, embeddings, temperature=1.0):
    logits = -squared_distances(latents, np.asarray(embeddings, "float64")) / temperature
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def inverse_cdf(probability, uniforms):
    """(n, num_codes) and (n, m) -> (n, m), by a search in each row's cumulative sums."""
    ends = np.cumsum(probability, axis=-1)
    found = [np.searchsorted(end, row * end[-1], side="right") for end, row in zip(ends, uniforms, strict=True)]
    return np.array(found)


class NumpyCodebook:
    """Counts, sums and embeddings of one codebook under moving averages."""

    def __init__(self, embeddings, counts=None, decay=0.99, epsilon=0.0):
        self.embeddings = np.array(embeddings, "float64")
        self.counts = np.ones(len(self.embeddings)) if counts is None else np.array(counts, "float64")
        self.sums = self.counts[:, None] * self.embeddings
        self.decay, self.epsilon = decay, epsilon

    def step(self, latents, samples):
        """One training step with the samples (n, m); the quantized latents and the mean squared error before it."""
        num_codes, num_samples = len(self.embeddings), samples.shape[-1]
        shares = np.zeros((len(latents), num_codes))
        for row, codes in enumerate(samples):
            for code in codes:
                shares[row, code] += 1 / num_samples
        quantized = shares @ self.embeddings
        error = ((latents - quantized) ** 2).mean()

        self.counts = self.decay * self.counts + (1 - self.decay) * shares.sum(0)
        self.sums = self.decay * self.sums + (1 - self.decay) * shares.T @ latents.astype("float64")
        total = self.counts.sum()
        smoothed = (self.counts + self.epsilon) / (total + num_codes * self.epsilon) * total
        self.embeddings = self.sums / smoothed[:, None]
        return quantized, error
