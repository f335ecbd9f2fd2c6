"""Sums over the replicas of a distributed training step."""

import keras
from keras import ops


def _context():
    """The TensorFlow replica context of a step that runs on several replicas, else None."""
    if keras.backend.backend() != "tensorflow":
        return None  # On JAX a distributed array is one global array: sums over it are global already.
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None


def all_reduce_sum(*tensors):
    """Sums each tensor over all replicas; the tensors themselves where there is one.

    Statistics have to be summed here, before the state is assigned: Keras assigns a non-trainable variable on each
    replica from that replica's own batch, and the copies then drift apart without an error.

    Args:
        *tensors: tensors of the same shapes on every replica.

    Returns:
        A list of the summed tensors. Must not be called inside a branch or a loop of the graph.
    """
    context = _context()
    if context is None:
        return list(tensors)
    import tensorflow as tf

    return context.all_reduce(tf.distribute.ReduceOp.SUM, list(tensors))


def share_by_code(vectors, available):
    """Gives every replica the same vectors: each code's comes from one of the replicas that have data, in turn.

    Args:
        vectors: tensor (num_codebooks, num_codes, dim), other values on each replica.
        available: bool scalar, whether this replica's vectors are data: its part of a batch can be empty.

    Returns:
        Tensor (num_codebooks, num_codes, dim), equal on all replicas; zeros where no replica has data.
    """
    context = _context()
    if context is None:
        return vectors
    me = ops.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync, dtype="int32")
    present = all_reduce_sum(ops.where(available, me, 0))[0]
    my_turn = ops.sum((ops.cumsum(present) - 1) * me)
    turns = ops.arange(vectors.shape[1]) % ops.maximum(ops.sum(present), 1)
    mine = ops.logical_and(available, turns == my_turn)
    return all_reduce_sum(ops.where(mine[:, None], vectors, 0.0))[0]


def from_first(tensor):
    """Gives every replica the first replica's tensor."""
    context = _context()
    if context is None:
        return tensor
    return all_reduce_sum(ops.where(context.replica_id_in_sync_group == 0, tensor, 0.0))[0]


def share_of_loss(loss):
    """A loss, the mean over a replica's examples, as that replica's share in the mean over all of them.

    Keras adds up the gradients of the replicas. It divides the losses that it computes itself by their number; a model
    with a `compute_loss` of its own has to, or learns at as many times its learning rate.
    """
    context = _context()
    return loss if context is None else loss / context.num_replicas_in_sync
