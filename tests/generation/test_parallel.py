"""Codes that are all there at once, against a loop in Python."""

import numpy as np
from compiled import compiled, numpy

from vq_keras import generation


def test_each_position_takes_its_likeliest_code_up_to_the_end():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40, 7, 4)).astype("float32")
    lengths = rng.integers(0, 8, 40)
    codes, log_probs = compiled(lambda x, present: generation.parallel(x, present, end=1))(
        logits, np.arange(7) < lengths[:, None]
    )
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    ended = 0
    for row, found, length, score in zip(log_p, np.asarray(codes), lengths, numpy(log_probs), strict=True):
        expected, total = [], 0.0
        for position in row[:length]:
            expected.append(position.argmax())
            total += position.max()
            if expected[-1] == 1:
                ended += 1
                break
        np.testing.assert_array_equal(found, [*expected, *[0] * (7 - len(expected))])
        assert abs(score - total) < 1e-5  # Sums of seven float32 terms.
    assert 10 < ended < 40
