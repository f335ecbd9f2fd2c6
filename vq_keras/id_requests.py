"""What a served translator makes of ids before its model sees them: bounded, ended, or refused."""

from vq_keras.data.vocabulary import EOS, PAD


def bounded_source(source_ids, max_length: int, vocabulary_size: int) -> tuple:
    """Sources as a model has learned to read them.

    What follows a row's first EOS is taken for padding, whatever it is: TF Serving fills up the shorter requests of a
    batch with their own first id (`pad_variable_length_inputs`).

    Args:
        source_ids: int32 (batch, n), of any n.
        max_length: the most ids of a sentence, EOS among them.
        vocabulary_size: number of ids.

    Returns:
        ids (batch, m), 1 <= m <= max_length, EOS alone for an empty row; and truncated (batch,) bool, whether a row was
        longer than `max_length`, and so was cut to end there. An id outside of the vocabulary is refused when the
        graph runs.
    """
    import tensorflow as tf

    ids = _ended(source_ids, "source_ids", vocabulary_size)
    ids = tf.pad(ids, [[0, 0], [0, tf.cast(tf.shape(ids)[1] == 0, "int32")]])
    truncated = tf.reduce_any(ids[:, max_length:] != PAD, axis=1)
    ids = ids[:, :max_length]
    places = tf.range(tf.shape(ids)[1])
    ids = tf.where(truncated[:, None] & (places == max_length - 1), EOS, ids)
    empty = tf.reduce_all(ids == PAD, axis=1)
    return tf.where(empty[:, None] & (places == 0), EOS, ids), truncated


def checked_target(target_ids, source_ids, max_length: int, vocabulary_size: int):
    """Targets to be scored, one for each source; refused where they have more than `max_length` columns or none."""
    import tensorflow as tf

    with tf.control_dependencies(
        [_same_rows(source_ids=source_ids, target_ids=target_ids), _columns("target_ids", target_ids, 1, max_length)]
    ):
        return _ended(target_ids, "target_ids", vocabulary_size)


def checked_memory(memory, mask, max_length: int):
    """The memory and its mask; refused where they do not fit each other, or have other sizes than `encode` gives."""
    import tensorflow as tf

    same = tf.debugging.Assert(
        tf.reduce_all(tf.shape(memory)[:2] == tf.shape(mask)), ["memory and mask differ in rows or columns"]
    )
    with tf.control_dependencies([same, _columns("memory", memory, 1, max_length)]):
        return tf.identity(memory), mask != 0


def checked_codes(codes, memory, num_codes: int):
    """Codes for the memory; refused where there are other ones, none, or more than the memory has columns."""
    import tensorflow as tf

    known = tf.debugging.Assert(
        tf.reduce_all((codes >= -1) & (codes < num_codes)), [f"codes are not all within -1 to {num_codes - 1}"]
    )
    fits = _columns("codes", codes, 1, tf.shape(memory)[1])
    with tf.control_dependencies([known, fits, _same_rows(memory=memory, codes=codes)]):
        return tf.identity(codes)


def _ended(ids, name, vocabulary_size):
    import tensorflow as tf

    known = tf.debugging.Assert(
        tf.reduce_all((ids >= 0) & (ids < vocabulary_size)),
        [f"{name} are not all within the vocabulary, 0 to {vocabulary_size - 1}"],
    )
    with tf.control_dependencies([known]):
        behind = tf.cumsum(tf.cast(ids == EOS, "int32"), axis=1, exclusive=True) > 0
    return tf.where(behind, PAD, ids)


def _same_rows(**tensors):
    import tensorflow as tf

    (one, x), (other, y) = tensors.items()
    return tf.debugging.Assert(tf.shape(x)[0] == tf.shape(y)[0], [f"{one} and {other} differ in rows"])


def _columns(name, x, least, most):
    import tensorflow as tf

    columns = tf.shape(x)[1]
    fits = (columns >= least) & (columns <= most)
    return tf.debugging.Assert(fits, [f"{name} has a number of columns out of range, which is {least} to", most])
