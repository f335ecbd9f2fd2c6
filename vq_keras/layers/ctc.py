"""Connectionist temporal classification: slots that are more than the tokens, and find their places themselves."""

import keras
from keras import ops

# Two for each place of the decoder, so that all of its places can hold a token and a blank between equal ones.
SLOTS = 2
# In place of the logarithm of 0, whose differences have no value.
IMPOSSIBLE = -1e9


def ctc_nll(blank, labels, ids, num_labels, num_slots):
    """-log of the probability of a sequence, summed over its alignments with the slots.

    An alignment gives each slot a label or a blank, so that the labels in their order, each in one slot or several in
    a row, are the sequence; between two equal ones stands a blank (Graves et al. 2006, "Connectionist Temporal
    Classification", equations 3 to 8). With s over the labels and the blanks around them, 2 m + 1 in all,

        alpha_1(s) = p_1(s) for the first blank and the first label, else 0
        alpha_t(s) = p_t(s) (alpha_{t-1}(s) + alpha_{t-1}(s - 1) + [s and s - 2 are other labels] alpha_{t-1}(s - 2))

    It takes the probabilities of a sequence's own labels alone: `keras.ops.ctc_loss`, on TensorFlow, makes a tensor of
    slots x labels x the whole vocabulary.

    Args:
        blank: (batch, slots), the blank's log probability in each slot.
        labels: (batch, slots, m), that of each label.
        ids: (batch, m), the labels.
        num_labels: (batch,), how many of them there are.
        num_slots: (batch,), and of the slots.

    Returns:
        (batch,) in nats; 1e9 and more for more labels than the slots can take.

    Example:
        >>> half = ops.log([[0.5, 0.5]])
        >>> ctc_nll(half, half[..., None], ops.array([[7]]), ops.array([1]), ops.array([2]))  # [-log 0.75]
    """
    slots, m = ops.shape(labels)[1:]
    length = 2 * m + 1
    # Blank, label, blank, label, ..., blank.
    around = ops.broadcast_to(blank[..., None], ops.shape(labels))
    states = ops.reshape(ops.stack([around, labels], axis=-1), (-1, slots, 2 * m))
    states = ops.transpose(ops.concatenate([states, blank[..., None]], axis=-1), (1, 0, 2))
    other = ops.not_equal(ids, ops.pad(ids[:, :-1], [[0, 0], [1, 0]], constant_values=-1))
    skip = ops.reshape(ops.stack([ops.zeros_like(other), other], axis=-1), (-1, 2 * m))
    skip = ops.where(ops.pad(skip, [[0, 0], [0, 1]]), 0.0, IMPOSSIBLE)

    def step(alpha, log_p):
        padded = ops.pad(alpha, [[0, 0], [2, 0]], constant_values=IMPOSSIBLE)
        stayed, moved, skipped = alpha, padded[:, 1:-1], padded[:, :-2] + skip
        # What is impossible does not become more so.
        alpha = ops.maximum(ops.logaddexp(ops.logaddexp(stayed, moved), skipped) + log_p, IMPOSSIBLE)
        return alpha, alpha

    start = ops.where(ops.arange(length) < 2, states[0], IMPOSSIBLE)
    _, alphas = ops.scan(step, start, states[1:])
    # Each sentence at its own last slot, behind its last label and at it.
    alphas = ops.concatenate([start[None], alphas], axis=0)
    last = ops.take_along_axis(alphas, (num_slots - 1)[None, :, None], axis=0)[0]
    ends = ops.take_along_axis(last, ops.stack([2 * num_labels - 1, 2 * num_labels], axis=1), axis=1)
    return -ops.logaddexp(ends[:, 0], ends[:, 1])


@keras.saving.register_keras_serializable(package="vq_keras")
class Slots(keras.layers.Layer):
    """Two slots for each place: h + W_1 h and h + W_2 h.

    Libovický and Helcl 2018, "End-to-End Non-Autoregressive Neural Machine Translation with Connectionist Temporal
    Classification", section 3, project each state into as many. The sum lets a trained decoder write both slots alike
    at first, which is its one token.

    Shapes:
        input (batch, n, dim), output (batch, 2 n, dim).

    Example:
        >>> Slots()(ops.ones((1, 3, 8))).shape
        (1, 6, 8)
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape):
        self.dim = input_shape[-1]
        small = keras.initializers.RandomNormal(stddev=0.02)
        self.split = keras.layers.Dense(
            SLOTS * self.dim, kernel_initializer=small, dtype=self.dtype_policy, name="split"
        )
        self.split.build(input_shape)

    def call(self, x):
        slots = ops.repeat(x, SLOTS, axis=1)
        return slots + ops.reshape(self.split(x), (-1, ops.shape(slots)[1], self.dim))

    def compute_output_spec(self, x):
        length = None if x.shape[1] is None else SLOTS * x.shape[1]
        return keras.KerasTensor((x.shape[0], length, x.shape[2]), dtype=self.compute_dtype)
