"""The codebook: the only owner of counts, sums and embeddings."""

import keras
from keras import ops

from vq_keras.bottlenecks import assignment, replicas, seeding
from vq_keras.bottlenecks.saved_seed import SavedSeed
from vq_keras.bottlenecks.sphere import l2_normalize
from vq_keras.errors import InputError

# What codes average over where no decay is given: at least so many latents each, and at least so many steps.
LATENTS_A_CODE = 30
STEPS = 5
# A young codebook averages over less: so many latents a code, and this share of what each has had so far.
FIRST_LATENTS = 2
SHARE_OF_AGE = 0.25
# Codes that restart on a batch, as a share of its latents, where more are dead.
RESTARTS = 0.25
# Keeps anchors bounded where a trained matrix has lost a direction.
RIDGE = 1e-6
INITIALIZERS = ("samples", "kmeans", "normal")
UPDATES = ("ema", "gradient", "linear")


class Codebook(SavedSeed, keras.layers.Layer):
    r"""Embedding vectors and the statistics that move them.

    Three ways to learn the embeddings:

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
    - `update="linear"` (SimVQ, Zhu et al. 2024): `e = embeddings W` with one trained (dim, dim) matrix W for all codes
      of a codebook, which begins as the identity. All codes move with any that is used. The paper draws the frozen
      embeddings from a normal distribution; here they are latents of the first batch like any other codebook's, so
      that data far from the origin are reached, and restart like any other's: a matrix moves all codes alike, and
      takes none to a cluster that was missed, nor after an encoder that drifts.

    With `cosine` latents and codes are compared on the unit sphere (ViT-VQGAN, Yu et al. 2021): the latents come
    normalised, and the embeddings are normalised when read. Averages of unit vectors that are normalised when read are
    spherical k-means.

    Counts start above zero, on the data at the mean of the first batch, with sums = counts x embeddings. With counts of
    zero the first step would divide the codes without a latent by nearly zero, and those of 1 code in 512 would take
    all the data from then on.

    Initialisation from data: at the first training step the embeddings become latents of the batch (`"samples"`) or
    centres of k-means over it (`"kmeans"`; in distributed training over the first replica's share). Codes drawn
    from a distribution that does not fit the latents (`"normal"`) mostly never win one.

    The decay: an average over few latents is noise, and one over many steps is behind an encoder that learns. A code
    gets n / K latents of a batch of n, so that decay 0.99 makes it an average over 100 n / K latents: 8,000 in a model
    of images, 6 in one of sentences, whose batches have a latent for each sixteenth code. Without a `decay` it is
    1 - min(n / (w K), 1 / 5) at each step: averages over w latents a code, or over 5 steps where those have more.
    (oord2017 writes 0.99, for images and speech; roy2018 0.999, for sentences, where this ends at 0.998.) w begins at
    2 and grows by a quarter of the latents that a code gets, up to 30: as encoders do, codes move fast at first. With
    30 from the start 4,096 codes for a thousand latents a step, in a Transformer that had just begun to learn, stayed
    behind: after 100 steps 22 were in use, and none of the others had been missed for long enough to restart.

    Restart of dead codes: a code whose count has decayed below `restart_threshold` times the mean count becomes a
    latent of the current batch, with the mean count and fitting sums: one far from the codes, see `seeding.far`. The
    threshold is relative, so that it means the same for any batch size and number of codes. A code that wins nothing
    reaches 0.1 of the mean after ln 0.1 / ln decay steps, 10 at 0.8 and 229 at 0.99, which is also how long a restarted
    one has to prove itself. Where more are dead than a quarter of the batch has latents, as many restart at once, by
    lot: of thousands, most would begin on the same few. The price: a code that rightly serves less than that share of
    the data is moved now and then; 0 turns restarts off.

    Args:
        num_codes: codes in each codebook.
        num_codebooks: independent codebooks.
        update: "ema", "gradient" or "linear".
        decay: of counts and sums, in [0, 1); None for what the number of latents asks for, see above.
        epsilon: of the Laplace smoothing, at least 0.
        initializer: "samples", "kmeans" or "normal" (mean 0, variance 1).
        restart_threshold: in [0, 1), relative to the mean count.
        cosine: whether the embeddings are unit vectors.
        seed: of initialisation and restarts.

    Raises:
        InputError: where an argument is outside its range.
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
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if update not in UPDATES:
            raise InputError(f"update is {update!r}; give one of {', '.join(UPDATES)}.")
        if decay is not None and not 0 <= decay < 1:
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
        self.cosine = cosine
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, latents_shape):
        self.dim = latents_shape[-1]
        shape = (self.num_codebooks, self.num_codes, self.dim)
        # float32 without autocast under every policy: in half precision an average with decay 0.99 stops short of
        # its limit. "only_first_replica": the replicas' values are equal, because the sums were reduced before.
        state = {"trainable": False, "dtype": "float32", "autocast": False, "aggregation": "only_first_replica"}
        normal = keras.initializers.RandomNormal(stddev=1.0, seed=self.seed_generator)
        self.anchors = self.add_weight(shape=shape, initializer=normal, name="embeddings", **state)
        self.counts = self.add_weight(shape=shape[:2], initializer="ones", name="counts", **state)
        # 0 before codes are on the data; then what they average over, as a share of LATENTS_A_CODE.
        self.maturity = self.add_weight(shape=(), initializer="zeros", name="maturity", **state)
        if self.update == "ema":
            # Not by assign: a Keras model that is built by its first `fit` loses what is assigned in `build`.
            self.sums = self.add_weight(
                shape=shape, initializer=lambda shape, dtype: self.anchors + 0.0, name="sums", **state
            )
        elif self.update == "gradient":
            self.displacement = self.add_weight(
                shape=shape, initializer="zeros", name="displacement", dtype="float32", autocast=False
            )
        else:
            self.transform = self.add_weight(
                shape=(self.num_codebooks, self.dim, self.dim),
                initializer=lambda shape, dtype: ops.broadcast_to(ops.eye(self.dim, dtype=dtype), shape),
                name="transform",
                dtype="float32",
                autocast=False,
            )
        self.built = True

    @property
    def embeddings(self):
        """The code vectors, float32 (num_codebooks, num_codes, dim)."""
        embeddings = ops.convert_to_tensor(self.anchors)
        if self.update == "gradient":
            embeddings = embeddings + self.displacement
        elif self.update == "linear":
            embeddings = ops.matmul(embeddings, self.transform)
        return l2_normalize(embeddings) if self.cosine else embeddings

    def set(self, embeddings, counts=None):
        """Puts the codebook into a state, all parts of which fit together, and marks it as mature.

        Args:
            embeddings: (num_codebooks, num_codes, dim), or (num_codes, dim) for one codebook.
            counts: (num_codebooks, num_codes) or (num_codes,), above zero; 1 for each code where not given.
        """
        embeddings = ops.convert_to_tensor(embeddings, "float32")
        if tuple(embeddings.shape) not in (self.anchors.shape, self.anchors.shape[self.num_codebooks == 1 :]):
            raise InputError(f"embeddings of shape {tuple(embeddings.shape)} do not fit {self.anchors.shape}.")
        counts = ops.ones(self.counts.shape) if counts is None else ops.convert_to_tensor(counts, "float32")
        everywhere = ops.ones(self.counts.shape, "bool")
        if self.update == "linear":
            self.transform.assign(ops.broadcast_to(ops.eye(self.dim), self.transform.shape))
        self._place(everywhere, ops.reshape(embeddings, self.anchors.shape), ops.reshape(counts, self.counts.shape))
        self.maturity.assign(1.0)

    def lookup(self, samples):
        """The mean of the vectors of m codes.

        Args:
            samples: int32 (n, num_codebooks, m) in [0, num_codes).

        Returns:
            float32 (n, num_codebooks, dim).
        """
        return assignment.lookup(self.embeddings, samples)

    def orthogonality(self):
        """How far the codes are from pairwise orthogonal: |E E' - I|^2 / K^2 with E the normalised embeddings.

        (Shin et al. 2021, section 3.2.) Zero for orthogonal codes, 1 - 1/K if all point one way. Since |E E'| = |E' E|
        and the rows are of unit length it is (|E' E|^2 - K) / K^2, where no K x K matrix occurs. Mean over codebooks.
        """
        directions = l2_normalize(self.embeddings)
        gram = ops.matmul(ops.transpose(directions, (0, 2, 1)), directions)
        return (ops.mean(ops.sum(ops.square(gram), axis=(1, 2))) - self.num_codes) / self.num_codes**2

    def initialise(self, latents, weights):
        """Places the embeddings on the data, once; does nothing where that was done or is not wanted.

        Args:
            latents: float32 (n, num_codebooks, dim), zero where masked.
            weights: float32 (n,): 1 for latents that count, 0 for masked ones.
        """
        if self.initializer == "normal":
            return
        done, number = self.maturity > 0, ops.sum(weights)
        uniforms, now = self._uniforms(), ops.convert_to_tensor(self.anchors)
        embeddings = ops.cond(done, lambda: now, lambda: seeding.spread(latents, weights, uniforms))
        embeddings, total = replicas.share_by_code(embeddings, number > 0), replicas.all_reduce_sum(number)[0]
        counts = ops.broadcast_to(total / self.num_codes, self.counts.shape)
        if self.initializer == "kmeans":
            start = embeddings
            embeddings, counts = ops.cond(
                done, lambda: (start, counts), lambda: seeding.kmeans(latents, weights, start, self._statistics)
            )
            embeddings, counts = replicas.from_first(embeddings), replicas.from_first(counts)
        # A batch without one unmasked latent has nothing to start from: the next one will.
        places = ops.logical_and(total > 0, ops.logical_not(done))
        self._place(ops.broadcast_to(places, self.counts.shape), embeddings, counts)
        first = FIRST_LATENTS / LATENTS_A_CODE
        self.maturity.assign(ops.maximum(self.maturity, first * ops.cast(places, "float32")))

    def move(self, latents, samples, weights, errors):
        """The M step: counts, and under EMA sums and embeddings, follow a batch; dead codes restart.

        Args:
            latents: float32 (n, num_codebooks, dim), zero where masked.
            samples: int32 (n, num_codebooks, m), the codes of each latent, each with weight 1/m.
            weights: float32 (n,): 1 for latents that count, 0 for masked ones.
            errors: float32 (n, num_codebooks), squared distances of the latents to what they were quantised to, up to
                a factor.
        """
        batch_counts, batch_sums = replicas.all_reduce_sum(*self._statistics(latents, samples, weights))
        number = ops.sum(batch_counts, axis=-1, keepdims=True)
        decay = self._decay_of(number)
        growth = SHARE_OF_AGE * ops.mean(number) / (LATENTS_A_CODE * self.num_codes)
        self.maturity.assign(ops.minimum(1.0, self.maturity + growth))
        counts = decay * self.counts + (1 - decay) * batch_counts
        self.counts.assign(counts)
        if self.update == "ema":
            sums = decay[..., None] * self.sums + (1 - decay[..., None]) * batch_sums
            total = ops.sum(counts, axis=-1, keepdims=True)
            smoothed = (counts + self.epsilon) / (total + self.num_codes * self.epsilon) * total
            # Only decay 0 makes a count zero: such a code has no latent to move to, and stays.
            alive = counts > 0
            moved = sums / ops.where(alive, smoothed, 1.0)[..., None]
            self.anchors.assign(ops.where(alive[..., None], moved, ops.convert_to_tensor(self.anchors)))
            self.sums.assign(sums)
        if self.restart_threshold > 0:
            mean = ops.mean(counts, axis=-1, keepdims=True)
            # A batch that is masked entirely has no latent to restart from.
            dead = ops.logical_and(counts < self.restart_threshold * mean, number > 0)
            num_dead = ops.sum(ops.cast(dead, "float32"), axis=-1, keepdims=True)
            share = ops.maximum(RESTARTS * number, 1.0) / ops.maximum(num_dead, 1.0)
            dead = ops.logical_and(dead, replicas.from_first(self._uniforms()) < share)
            uniforms, now = self._uniforms(), ops.convert_to_tensor(self.anchors)
            embeddings = ops.cond(
                ops.any(dead), lambda: seeding.far(latents, weights, errors, dead, uniforms), lambda: now
            )
            self._place(dead, replicas.share_by_code(embeddings, ops.sum(weights) > 0), mean)

    def _decay_of(self, number):
        """The decay for a step with so many latents, (num_codebooks, 1) both."""
        if self.decay is not None:
            return ops.full_like(number, self.decay)
        latents = ops.maximum(LATENTS_A_CODE * self.maturity, FIRST_LATENTS)
        return 1.0 - ops.minimum(number / (self.num_codes * latents), 1.0 / STEPS)

    def _uniforms(self):
        return keras.random.uniform(self.counts.shape, seed=self.seed_generator)

    def _place(self, places, embeddings, counts):
        """Puts the codes where `places` (num_codebooks, num_codes) is true; all parts of their state then fit."""
        rows, sums = places[..., None], counts[..., None] * embeddings

        def place(variable, where, new):
            variable.assign(ops.where(where, new, ops.convert_to_tensor(variable)))

        place(self.counts, places, counts)
        if self.update == "ema":
            place(self.anchors, rows, embeddings)
            place(self.sums, rows, sums)
        elif self.update == "gradient":
            place(self.anchors, rows, embeddings - self.displacement)
        else:
            anchors = ops.cond(ops.any(places), lambda: self._behind_transform(embeddings), lambda: embeddings)
            place(self.anchors, rows, anchors)

    def _behind_transform(self, embeddings):
        """The anchors a for which a W comes nearest to the embeddings, by |a W - e|^2 + ridge |a|^2."""
        transform = ops.convert_to_tensor(self.transform)
        targets = ops.transpose(embeddings, (0, 2, 1))
        gram = ops.matmul(transform, ops.transpose(transform, (0, 2, 1)))
        gram = gram + RIDGE * ops.mean(ops.diagonal(gram, axis1=1, axis2=2), axis=-1)[:, None, None] * ops.eye(self.dim)
        anchors = ops.solve(gram, ops.matmul(transform, targets))
        # Once more for what is left, which makes the ridge's share of the error its square.
        left = targets - ops.matmul(ops.transpose(transform, (0, 2, 1)), anchors)
        anchors = anchors + ops.solve(gram, ops.matmul(transform, left))
        return ops.transpose(anchors, (0, 2, 1))

    def _statistics(self, latents, samples, weights):
        """Number and sum of the latents assigned to each code, each sample with the share 1/m."""
        size = self.num_codebooks * self.num_codes
        rows = assignment.rows(samples, self.num_codebooks, self.num_codes)
        ones = ops.reshape(ops.broadcast_to(weights[:, None], ops.shape(latents)[:2]), (-1,))
        latents = ops.reshape(latents, (-1, self.dim))

        def total(values):
            return assignment.mean_over_samples(
                lambda sample: ops.segment_sum(values, ops.reshape(rows[..., sample], (-1,)), size), samples.shape[-1]
            )

        return ops.reshape(total(ones), self.counts.shape), ops.reshape(total(latents), self.anchors.shape)

    def get_config(self):
        return {**super().get_config(), **self.arguments()}

    def arguments(self):
        """The constructor's own arguments, for the configuration of a bottleneck that makes its codebook."""
        own = ("update", "decay", "epsilon", "initializer", "restart_threshold", "cosine", "seed")
        return {name: getattr(self, name) for name in ("num_codes", "num_codebooks", *own)}
