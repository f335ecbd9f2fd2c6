"""The codebook: the only owner of counts, sums and embeddings."""

import keras
from keras import ops

from vq_keras.bottlenecks import assignment, replicas
from vq_keras.errors import InputError

KMEANS_ITERATIONS = 10
INITIALIZERS = ("samples", "kmeans", "normal")


class Codebook(keras.layers.Layer):
    r"""Embedding vectors and the statistics that move them.

    Two ways to learn the embeddings:

    - `update="ema"` (oord2017 appendix A.1, roy2018 equations 3 and 4). With n_k and s_k the number and the sum of
      the latents assigned to code k in a batch,

          counts_k <- decay counts_k + (1 - decay) n_k
          sums_k   <- decay sums_k   + (1 - decay) s_k
          e_k      <- sums_k / c_k,    c_k = (counts_k + epsilon) / (N + K epsilon) N,    N = sum_k counts_k

      roy2018 equation 4 divides inside the average; its released code, like this one, averages counts and sums and
      divides after, which is exact k-means for decay 0. The Laplace smoothing c_k moves no mass: sum_k c_k = N.
    - `update="gradient"`: `e = embeddings + displacement`, where only the displacement is trained, by the codebook
      loss. The split lets initialisation and restarts move a code as state: a trainable weight that is assigned
      during a JAX training step keeps its old value.

    Counts start above zero with sums = counts x embeddings. With counts of zero the first step would divide the
    codes without a latent by nearly zero, and those of 1 code in 512 would take all the data from then on.

    Initialisation from data: at the first training step the embeddings become latents of the batch (`"samples"`) or
    centres of k-means over it (`"kmeans"`; in distributed training over the first replica's share). Codes drawn
    from a distribution that does not fit the latents (`"normal"`) mostly never win one.

    Restart of dead codes: a code whose count has decayed below `restart_threshold` times the mean count becomes a
    latent of the current batch, with the mean count and fitting sums. The threshold is relative, so that it means
    the same for any batch size and number of codes. A code that wins nothing reaches 0.1 of the mean after
    ln 0.1 / ln 0.99 = 229 steps, which is also how long a restarted one has to prove itself. The price: a code that
    rightly serves less than that share of the data is moved now and then; 0 turns restarts off.

    Args:
        num_codes: codes in each codebook, at least 2.
        num_codebooks: independent codebooks.
        update: "ema" or "gradient".
        decay: of counts and sums, in [0, 1).
        epsilon: of the Laplace smoothing, at least 0.
        initializer: "samples", "kmeans" or "normal" (mean 0, variance 1).
        restart_threshold: in [0, 1), relative to the mean count.
        seed: of initialisation and restarts.

    Raises:
        InputError: where an argument is outside its range.
    """

    def __init__(
        self,
        num_codes,
        num_codebooks=1,
        update="ema",
        decay=0.99,
        epsilon=1e-5,
        initializer="samples",
        restart_threshold=0.1,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if num_codes < 2:
            raise InputError(f"num_codes is {num_codes}, but a codebook needs at least 2 codes.")
        if num_codebooks < 1:
            raise InputError(f"num_codebooks is {num_codebooks}; give 1 or more.")
        if update not in ("ema", "gradient"):
            raise InputError(f'update is {update!r}; give "ema" or "gradient".')
        if not 0 <= decay < 1:
            raise InputError(f"decay is {decay}; give a number in [0, 1). To freeze a codebook set trainable=False.")
        if epsilon < 0:
            raise InputError(f"epsilon is {epsilon}; give 0 or more.")
        if initializer not in INITIALIZERS:
            raise InputError(f"initializer is {initializer!r}; give one of {', '.join(INITIALIZERS)}.")
        if not 0 <= restart_threshold < 1:
            raise InputError(f"restart_threshold is {restart_threshold}; give a number in [0, 1), 0 for no restarts.")
        self.num_codes = num_codes
        self.num_codebooks = num_codebooks
        self.update = update
        self.decay = decay
        self.epsilon = epsilon
        self.initializer = initializer
        self.restart_threshold = restart_threshold
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, latents_shape):
        self.dim = latents_shape[-1]
        shape = (self.num_codebooks, self.num_codes, self.dim)
        # float32 without autocast under every policy: in half precision an average with decay 0.99 stops short of
        # its limit. "only_first_replica": the replicas' values are equal, because the sums were reduced before.
        state = dict(trainable=False, dtype="float32", autocast=False, aggregation="only_first_replica")
        normal = keras.initializers.RandomNormal(stddev=1.0, seed=self.seed_generator)
        self.anchors = self.add_weight(shape=shape, initializer=normal, name="embeddings", **state)
        self.counts = self.add_weight(shape=shape[:2], initializer="ones", name="counts", **state)
        self.initialised = self.add_weight(
            shape=(), initializer="zeros", name="initialised", **{**state, "dtype": "int32"}
        )
        if self.update == "ema":
            self.sums = self.add_weight(shape=shape, initializer="zeros", name="sums", **state)
            self.sums.assign(self.anchors)
        else:
            self.displacement = self.add_weight(
                shape=shape, initializer="zeros", name="displacement", dtype="float32", autocast=False
            )
        self.built = True

    @property
    def embeddings(self):
        """The code vectors, float32 (num_codebooks, num_codes, dim)."""
        anchors = ops.convert_to_tensor(self.anchors)
        return anchors if self.update == "ema" else anchors + self.displacement

    def set(self, embeddings, counts=None):
        """Puts the codebook into a state, all parts of which fit together, and marks it as initialised.

        Args:
            embeddings: (num_codebooks, num_codes, dim), or (num_codes, dim) for one codebook.
            counts: (num_codebooks, num_codes) or (num_codes,), above zero; 1 for each code where not given.
        """
        embeddings = ops.reshape(ops.cast(embeddings, "float32"), self.anchors.shape)
        counts = ops.ones(self.counts.shape) if counts is None else ops.cast(counts, "float32")
        self._assign(embeddings, ops.reshape(counts, self.counts.shape))
        self.initialised.assign(1)

    def lookup(self, samples):
        """The mean of the vectors of m codes; zero where a code is negative, a masked position's mark.

        One sample is gathered at a time: the (n, m, dim) tensor would be m times the latents.

        Args:
            samples: int32 (n, num_codebooks, m).

        Returns:
            float32 (n, num_codebooks, dim).
        """
        table = ops.reshape(self.embeddings, (-1, self.dim))
        num_samples = samples.shape[-1]
        present = ops.cast(samples >= 0, "float32")
        rows = self._rows(samples)
        total = 0.0
        for sample in range(num_samples):
            total = total + ops.take(table, rows[..., sample], axis=0) * present[..., sample, None]
        return total / num_samples

    def initialise(self, latents, weights=None):
        """Places the embeddings on the data, once; does nothing where that was done or is not wanted.

        Args:
            latents: float32 (n, num_codebooks, dim).
            weights: None, or float32 (n,): 1 for latents that count, 0 for masked ones.
        """
        if self.initializer == "normal":
            return
        done = self.initialised > 0
        chosen = self._choose(latents, weights)
        if self.initializer == "samples":
            embeddings, counts = chosen, ops.ones(self.counts.shape)
        else:
            embeddings, counts = ops.cond(
                done,
                self._state,
                lambda: self._kmeans(latents, weights, chosen),
            )
            embeddings, counts = replicas.from_first(embeddings), replicas.from_first(counts)
        # A batch without one unmasked latent has nothing to start from: the next one will.
        ready = True if weights is None else ops.sum(replicas.all_reduce_sum(ops.sum(weights))[0]) > 0
        keep = ops.logical_or(done, ops.logical_not(ready))
        self._assign(*(ops.where(keep, old, new) for old, new in zip(self._state(), (embeddings, counts), strict=True)))
        self.initialised.assign(ops.where(keep, ops.convert_to_tensor(self.initialised), 1))

    def move(self, latents, samples, weights=None):
        """The M step: counts, and under EMA sums and embeddings, follow a batch; dead codes restart.

        Args:
            latents: float32 (n, num_codebooks, dim).
            samples: int32 (n, num_codebooks, m), the codes of each latent, each with weight 1/m.
            weights: None, or float32 (n,): 1 for latents that count, 0 for masked ones.
        """
        batch_counts, batch_sums = self._statistics(latents, samples, weights, with_sums=self.update == "ema")
        batch_counts, batch_sums = replicas.all_reduce_sum(batch_counts, batch_sums)
        counts = self.decay * self.counts + (1 - self.decay) * batch_counts
        if self.update == "ema":
            sums = self.decay * self.sums + (1 - self.decay) * batch_sums
            total = ops.sum(counts, axis=-1, keepdims=True)
            smoothed = (counts + self.epsilon) / (total + self.num_codes * self.epsilon) * total
            # Only decay 0 makes a count zero: such a code has no latent to move to, and stays.
            alive = (counts > 0)[..., None]
            embeddings = ops.where(alive, sums / ops.where(alive, smoothed[..., None], 1.0), self.embeddings)
        else:
            sums, embeddings = None, self.embeddings
        if self.restart_threshold > 0:
            mean = ops.mean(counts, axis=-1, keepdims=True)
            dead = counts < self.restart_threshold * mean
            if weights is not None:
                # A batch that is masked entirely has no latent to restart from.
                dead = ops.logical_and(dead, ops.sum(batch_counts) > 0)
            counts = ops.where(dead, mean, counts)
            embeddings = ops.where(dead[..., None], self._choose(latents, weights), embeddings)
            if sums is not None:
                sums = ops.where(dead[..., None], counts[..., None] * embeddings, sums)
        self._assign(embeddings, counts, sums)

    def _state(self):
        return self.embeddings, ops.convert_to_tensor(self.counts)

    def _assign(self, embeddings, counts, sums=None):
        self.counts.assign(counts)
        if self.update == "ema":
            self.anchors.assign(embeddings)
            self.sums.assign(counts[..., None] * embeddings if sums is None else sums)
        else:
            self.anchors.assign(embeddings - self.displacement)

    def _rows(self, samples):
        """Rows of the flattened (num_codebooks * num_codes, dim) table; row 0 for masked positions."""
        offsets = ops.arange(self.num_codebooks, dtype="int32")[:, None] * self.num_codes
        return ops.where(samples >= 0, samples + offsets, 0)

    def _statistics(self, latents, samples, weights, with_sums=True):
        """Number and sum of the latents assigned to each code."""
        num_samples = samples.shape[-1]
        size = self.num_codebooks * self.num_codes
        rows = self._rows(samples)
        if weights is None:
            each = ops.ones_like(latents[..., 0]) / num_samples
            kept = latents
        else:
            each = ops.zeros_like(latents[..., 0]) + weights[:, None] / num_samples
            kept = ops.where(weights[:, None, None] > 0, latents, 0.0)
        each, kept = ops.reshape(each, (-1,)), ops.reshape(kept, (-1, self.dim)) / num_samples
        counts, sums = 0.0, 0.0
        for sample in range(num_samples):
            ids = ops.reshape(rows[..., sample], (-1,))
            counts = counts + ops.segment_sum(each, ids, size)
            if with_sums:
                sums = sums + ops.segment_sum(kept, ids, size)
        counts = ops.reshape(counts, (self.num_codebooks, self.num_codes))
        if with_sums:
            sums = ops.reshape(sums, (self.num_codebooks, self.num_codes, self.dim))
        return counts, ops.convert_to_tensor(sums)

    def _choose(self, latents, weights):
        """A latent of the batch for each code, (num_codebooks, num_codes, dim), the same on all replicas.

        Stratified: code k gets one from the k-th of K equal parts of the batch. So no latent serves two codes where
        there are enough of them, and where there are fewer codes than K they repeat.
        """
        shape = (self.num_codebooks, self.num_codes)
        strata = ops.arange(self.num_codes, dtype="float32")
        rank = (strata + keras.random.uniform(shape, seed=self.seed_generator)) / self.num_codes
        num_rows = ops.shape(latents)[0]
        if weights is None:
            rows = ops.cast(rank * ops.cast(num_rows, "float32"), "int32")
        else:
            ranks = ops.cumsum(ops.cast(weights > 0, "float32"))
            wanted = ops.reshape(rank * ranks[-1], (-1,))
            rows = ops.reshape(ops.cast(ops.searchsorted(ranks, wanted, side="right"), "int32"), shape)
        rows = ops.minimum(rows, num_rows - 1)
        chosen = [ops.take(latents[:, g], rows[g], axis=0) for g in range(self.num_codebooks)]
        chosen = ops.transpose(replicas.share_by_row(ops.transpose(ops.stack(chosen), (1, 0, 2))), (1, 0, 2))
        return chosen

    def _kmeans(self, latents, weights, start):
        """Lloyd's algorithm from `start`; returns centres and cluster sizes (at least 1)."""

        def step(_, state):
            centres, counts = state
            counts, sums = self._statistics(latents, assignment.nearest(latents, centres), weights)
            filled = (counts > 0)[..., None]
            return ops.where(filled, sums / ops.where(filled, counts[..., None], 1.0), centres), counts

        centres, counts = ops.fori_loop(0, KMEANS_ITERATIONS, step, (start, ops.ones(self.counts.shape)))
        return centres, ops.maximum(counts, 1.0)

    def get_config(self):
        return {**super().get_config(), **self.arguments()}

    def arguments(self):
        """The constructor's own arguments, for the configuration of a bottleneck that makes its codebook."""
        names = ("num_codes", "num_codebooks", "update", "decay", "epsilon", "initializer", "restart_threshold", "seed")
        return {name: getattr(self, name) for name in names}
