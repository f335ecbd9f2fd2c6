"""What bottlenecks with a codebook share."""

from keras import ops

from vq_keras.bottlenecks.base import Bottleneck, mean_over_elements, straight_through
from vq_keras.bottlenecks.codebook import Codebook
from vq_keras.bottlenecks.sphere import l2_normalize
from vq_keras.errors import InputError


class CodebookBottleneck(Bottleneck):
    """A bottleneck that replaces each latent by vectors of a codebook; a subclass says which.

    Args:
        num_codes, num_codebooks, update, decay, epsilon, initializer, restart_threshold, cosine, seed: see `Codebook`.
        commitment_weight: weight of the commitment loss, the mean over all elements of |z_e - sg(z_q)|^2. The papers
            write a squared norm, the sum over the dimensions of a latent; the mean, as in roy2018's released code,
            keeps the weight independent of `dim`.
        codebook_weight: likewise of the codebook loss |sg(z_e) - z_q|^2, which exists unless `update` is "ema".
        orthogonal_weight: of the codebook's `orthogonality`, likewise.
    """

    def __init__(
        self,
        num_codes,
        num_codebooks=1,
        update="ema",
        decay=None,
        epsilon=1e-5,
        initializer="samples",
        restart_threshold=0.1,
        cosine=False,
        commitment_weight=0.25,
        codebook_weight=1.0,
        orthogonal_weight=0.0,
        seed=None,
        **kwargs,
    ):
        super().__init__(num_codes, num_codebooks, **kwargs)
        self.codebook = Codebook(
            num_codes,
            num_codebooks,
            update,
            decay,
            epsilon,
            initializer,
            restart_threshold,
            cosine,
            seed,
            name="codebook",
        )
        self.commitment_weight = commitment_weight
        self.codebook_weight = codebook_weight
        self.orthogonal_weight = orthogonal_weight
        for name, weight in self._loss_weights().items():
            if weight < 0:
                raise InputError(f"{name} is {weight}; give 0 or more.")
        if orthogonal_weight > 0 and update == "ema":
            raise InputError('moving averages follow no loss: for an orthogonal_weight set update to "gradient".')

    @property
    def passes_straight_through(self):
        return not self.codebook.cosine

    def build(self, input_shape):
        super().build(input_shape)
        self.codebook.build(input_shape)

    def _assign(self, flat, training):
        return self._choose(self._comparable(flat), training)

    def _comparable(self, flat):
        """What is compared with the codes."""
        return l2_normalize(flat) if self.codebook.cosine else flat

    def _choose(self, flat, training):
        """As `_assign`, of comparable latents: what a subclass gives."""
        raise AttributeError(f"{type(self).__name__} has no rule that chooses codes.")

    def _quantize(self, flat, weights, training, num_examples):
        flat = self._comparable(flat)
        moving = bool(training) and self.trainable
        if moving:
            self.codebook.initialise(ops.stop_gradient(flat), weights)
        samples, codes = self._choose(flat, training)
        vectors = self._lookup(samples)
        errors = ops.mean(ops.square(flat - ops.stop_gradient(vectors)), axis=-1)
        if moving:
            self.codebook.move(ops.stop_gradient(flat), samples, weights, ops.stop_gradient(errors))

        # Behind the sums over replicas in `move`: the first of them lets the next replica begin its step, and Keras
        # then forgets the losses that this one has added.
        self.add_loss(self.commitment_weight * mean_over_elements(errors, weights))
        if self.codebook.update != "ema":
            codebook_loss = mean_over_elements(ops.square(ops.stop_gradient(flat) - vectors), weights)
            self.add_loss(self.codebook_weight * codebook_loss)
        if self.orthogonal_weight > 0:
            self.add_loss(self.orthogonal_weight * self.codebook.orthogonality())
        return self._through(flat, vectors), samples, codes

    def _through(self, flat, vectors):
        """The vectors, with the gradient that the latents get."""
        return straight_through(flat, vectors)

    def _lookup(self, samples):
        return self.codebook.lookup(samples)

    def _loss_weights(self):
        return {name: getattr(self, name) for name in ("commitment_weight", "codebook_weight", "orthogonal_weight")}

    def get_config(self):
        return {**super().get_config(), **self.codebook.arguments(), **self._loss_weights()}
