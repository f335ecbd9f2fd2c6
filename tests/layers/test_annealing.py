"""The schedule from target tokens to latents."""

import numpy as np
import pytest
from compiled import numpy

from vq_keras.layers import Annealing


@pytest.mark.parametrize(
    ("step", "share"), [(0, 0.0001), (5_000, 0.0069), (12_500, 0.2575), (25_000, 0.505), (50_000, 1.0), (60_000, 1.0)]
)
def test_the_released_schedule(step, share):
    layer = Annealing(50_000)
    layer.build()
    layer.steps.assign(step)
    assert float(layer.share()) == pytest.approx(share, rel=5e-3)  # The figures have as many digits.
    assert float(layer.done()) == (step >= 50_000)


def test_positions_are_mixed_in_that_share_and_steps_are_counted():
    layer = Annealing(100, seed=0)
    gold, latents = np.zeros((50, 200, 2), "float32"), np.ones((50, 200, 2), "float32")
    layer.build()
    layer.steps.assign(50)
    mixed = numpy(layer(gold, latents, training=True))
    assert int(layer.steps) == 51
    np.testing.assert_array_equal(mixed[..., 0], mixed[..., 1])
    assert mixed.mean() == pytest.approx(0.505, abs=0.02)  # Of 10,000 draws: four standard errors.
    assert numpy(layer(gold, latents, training=False)).all()
    assert int(layer.steps) == 51
