"""What slots say, against a loop in Python."""

import numpy as np
from compiled import compiled, numpy

from vq_keras import generation


def test_repeats_and_blanks_are_dropped_and_the_first_end_ends_it():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(60, 9, 4)).astype("float32")
    slots = rng.integers(0, 10, 60)
    labels, log_probs = compiled(lambda x, present: generation.best_path(x, present, end=1))(
        logits, np.arange(9) < slots[:, None]
    )
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    repeats = ended = 0
    for row, found, number, score in zip(log_p, np.asarray(labels), slots, numpy(log_probs), strict=True):
        path = row[:number].argmax(-1).tolist()
        expected = [label for label, before in zip(path, [0, *path], strict=False) if label not in (0, before)]
        repeats += len(expected) < np.count_nonzero(path)
        if 1 in expected:
            expected = expected[: expected.index(1) + 1]
            ended += 1
        np.testing.assert_array_equal(found, [*expected, *[0] * (9 - len(expected))])
        assert abs(score - row[:number].max(-1).sum()) < 1e-5  # Sums of nine float32 terms.
    assert repeats > 10
    assert 10 < ended < 60
