import keras
import numpy as np
import pytest

from vq_keras.errors import InputError
from vq_keras.training.schedules import WarmupDecay

# float32 against float64: a few units in the seventh digit.
TOLERANCE = 1e-5


def rates(schedule, steps):
    return [float(keras.ops.convert_to_numpy(schedule(step))) for step in steps]


def test_exponential_against_numpy():
    schedule = WarmupDecay(peak=2e-3, warmup_steps=100, total_steps=1000, final_ratio=0.05)
    steps = np.array([0, 1, 50, 100, 101, 400, 999, 1000])
    expected = np.where(
        steps < 100, 2e-3 * steps / 100, 2e-3 * np.exp(np.log(0.05) * (steps - 100).clip(0) / (1000 - 100))
    )
    np.testing.assert_allclose(rates(schedule, steps), expected, rtol=TOLERANCE)
    assert rates(schedule, [1000, 5000]) == pytest.approx([1e-4, 1e-4], rel=TOLERANCE)


def test_rsqrt_against_the_published_schedule():
    # 2 * min(1, step / 4000) / sqrt(max(step, 4000)) / sqrt(512)
    schedule = WarmupDecay(peak=2 / np.sqrt(512 * 4000), warmup_steps=4000, total_steps=250_000, decay="rsqrt")
    expected = [3.494e-7, 1.3975e-3, 6.988e-4, 2.795e-4]
    # The published numbers have four digits.
    np.testing.assert_allclose(rates(schedule, [1, 4000, 16_000, 100_000]), expected, rtol=2e-4)


def test_integer_tensors_as_the_optimizer_gives_them():
    schedule = WarmupDecay(peak=1e-3, warmup_steps=4, total_steps=10)
    assert rates(schedule, [keras.ops.convert_to_tensor(2, "int32")]) == pytest.approx([5e-4], rel=TOLERANCE)
    optimizer = keras.optimizers.SGD(schedule)
    weight = keras.Variable(np.zeros(1, "float32"))
    optimizer.build([weight])
    for _ in range(3):
        optimizer.apply([keras.ops.ones(1)])
    # Three updates, made with the rates of 0, 1 and 2 updates before.
    assert float(weight.value[0]) == pytest.approx(-(0 + 2.5e-4 + 5e-4), rel=TOLERANCE)


def test_comes_back_from_its_configuration():
    schedule = WarmupDecay(peak=1e-3, warmup_steps=4, total_steps=10, decay="rsqrt", final_ratio=0.1)
    optimizer = keras.optimizers.Adam(schedule)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again._learning_rate.get_config() == schedule.get_config()


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"decay": "cosine"}, "choose one of exponential, rsqrt"),
        ({"warmup_steps": 10}, "not 10 of 10 steps"),
        ({"warmup_steps": 0}, "at least 1 step"),
        ({"peak": 0.0}, "above 0"),
        ({"peak": float("nan")}, "above 0"),
        ({"final_ratio": 0.0}, r"\(0, 1\]"),
    ],
)
def test_bad_arguments(wrong, sentence):
    with pytest.raises(InputError, match=sentence):
        WarmupDecay(**({"peak": 1e-3, "warmup_steps": 4, "total_steps": 10} | wrong))
