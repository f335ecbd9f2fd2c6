"""What autoencoders of every kind tell of their training."""

import keras

from vq_keras import metrics


class Autoencoder(keras.Model):
    """A functional model with a bottleneck, and with metrics of its own in place of Keras's.

    They are means over examples, by name; where the bottleneck has codes `perplexity` and `codes_in_use`, and where it
    passes gradients straight through `codebook_distance`.
    """

    def _measure(self, bottleneck, *means):
        """Makes the metrics, at the end of `__init__`."""
        self._means = [keras.metrics.Mean(name=name) for name in means]
        self._usage = []
        if bottleneck.has_codes:
            codebooks = (bottleneck.num_codes, bottleneck.num_codebooks)
            self._usage = [
                metrics.Perplexity(*codebooks, name="perplexity"),
                metrics.CodesInUse(*codebooks, name="codes_in_use"),
            ]
        self._distance = [metrics.CodebookDistance()] if bottleneck.passes_straight_through else []

    def _update(self, means, codes=None, distances=None):
        """Takes the values of a batch, of each example, in the order of the names."""
        for mean, values in zip(self._means, means, strict=True):
            mean.update_state(values)
        for usage in self._usage:
            usage.update_state(codes)
        for distance in self._distance:
            distance.update_state(distances, codes)
        return self.get_metrics_result()

    def get_metrics_result(self):
        # A latent predictor has an nll_z of its own for training alone, which does not move here.
        ours = [*self._means, *self._usage, *self._distance]
        return {**super().get_metrics_result(), **{each.name: each.result() for each in ours}}
