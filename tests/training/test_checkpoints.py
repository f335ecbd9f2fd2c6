import json
import os
import shutil
import subprocess

import keras
import numpy as np
import pytest
from small_run import make_model, weights_of

from vq_keras.errors import InputError, TrainingStopped
from vq_keras.training.checkpoints import Checkpoints
from vq_keras.training.schedules import WarmupDecay


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def randomise(model, seed):
    rng = np.random.default_rng(seed)
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    for variable in (*model.variables, *model.optimizer.variables):
        variable.assign(rng.integers(0, 1000, variable.shape))


def saved(model, checkpoints, *steps):
    """Saves other random weights at each step; gives the weights by step."""
    kept = {}
    for step in steps:
        randomise(model, step)
        checkpoints.save(model, step, {"step_again": step, "rows": [0.1, 1 / 3]})
        kept[step] = weights_of(model)
    return kept


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_brings_back_every_variable(tmp_path):
    model = make_model()
    weights = saved(model, Checkpoints(tmp_path), 7)
    # Two kernels, two biases, the mean, the dropout's seed; the step and two moments of each of the first four.
    assert len(weights[7]) == 6 + 1 + 2 * 4
    another = make_model()
    assert Checkpoints(tmp_path).restore(another) == (7, {"step_again": 7, "rows": [0.1, 1 / 3]})
    for old, new in zip(weights[7], weights_of(another), strict=True):
        assert old.dtype == new.dtype
        np.testing.assert_array_equal(old, new)


def test_names_may_shift(tmp_path):
    saved(make_model(), Checkpoints(tmp_path), 7)
    keras.layers.Dense(1)
    another = make_model()
    paths = json.loads((tmp_path / "step-00000007/state.json").read_text())["variables"]
    assert [path for path, *_ in paths] != [v.path for v in (*another.variables, *another.optimizer.variables)]
    assert Checkpoints(tmp_path).restore(another)[0] == 7


def test_metrics_are_left_out(tmp_path):
    model = make_model()
    Checkpoints(tmp_path).save(model, 1, {})
    paths = [path for path, *_ in json.loads((tmp_path / "step-00000001/state.json").read_text())["variables"]]
    assert not any("loss" in path or "mae" in path for path in paths)


@pytest.mark.parametrize("policy", ["bfloat16", "mixed_float16"])
def test_other_precisions(tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    model = make_model()
    if policy == "mixed_float16":
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    weights = saved(model, Checkpoints(tmp_path), 3)[3]
    another = make_model()
    Checkpoints(tmp_path).restore(another)
    for old, new in zip(weights, weights_of(another), strict=True):
        assert old.dtype == new.dtype
        np.testing.assert_array_equal(old.astype("float64"), new.astype("float64"))


def test_mean_of_the_weights_of_the_last(tmp_path):
    model = make_model()
    checkpoints = Checkpoints(tmp_path, keep=4)
    weights = saved(model, checkpoints, 10, 20, 30, 40)
    another = make_model()
    assert Checkpoints(tmp_path).restore_mean(another, 3) == [20, 30, 40]
    averaged = {id(weight) for weight in another.weights}
    variables = [*another.variables, *another.optimizer.variables]
    # Two kernels, two biases and the mean; not the dropout's seed, nor the optimizer.
    assert sum(id(variable) in averaged for variable in variables) == 5
    for index, (variable, value) in enumerate(zip(variables, weights_of(another), strict=True)):
        if id(variable) in averaged:
            expected = (weights[20][index] + weights[30][index] + weights[40][index]) / 3
            np.testing.assert_allclose(value, expected, rtol=1e-6)
        else:
            np.testing.assert_array_equal(value, weights[40][index])


def test_mean_passes_over_damaged_ones(tmp_path):
    model = make_model()
    checkpoints = Checkpoints(tmp_path, keep=3)
    weights = saved(model, checkpoints, 10, 20, 30)
    truncate(tmp_path / "step-00000020/variables.npz")
    with pytest.warns(UserWarning, match="step-00000020 is damaged"):
        assert checkpoints.restore_mean(model, 2) == [10, 30]
    np.testing.assert_allclose(weights_of(model)[0], (weights[10][0] + weights[30][0]) / 2, rtol=1e-6)
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(InputError, match="holds 2 of the 3 checkpoints"),
    ):
        checkpoints.restore_mean(model, 3)
    with pytest.raises(InputError, match="at least one"):
        checkpoints.restore_mean(model, 0)


def test_nothing_there():
    assert Checkpoints("/nowhere/at/all").restore(make_model()) is None
    with pytest.raises(InputError, match="holds 0 of the 2 checkpoints"):
        Checkpoints("/nowhere/at/all").restore_mean(make_model(), 2)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_keeps_the_last(tmp_path, keep):
    saved(make_model(), Checkpoints(tmp_path, keep), 10, 20, 30, 40)
    assert names(tmp_path) == [f"step-000000{step}" for step in (10, 20, 30, 40)[-keep:]]


def test_checksums_are_those_of_the_usual_tool(tmp_path):
    if not shutil.which("sha256sum"):
        pytest.skip("sha256sum is not installed")
    saved(make_model(), Checkpoints(tmp_path), 10)
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path / "step-00000010", check=True)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("file", ["variables.npz", "state.json", "SHA256SUMS"])
@pytest.mark.parametrize("damage", [truncate, flip_a_bit, os.remove])
def test_a_damaged_one_is_named_and_passed_over(tmp_path, file, damage):
    model = make_model()
    checkpoints = Checkpoints(tmp_path)
    weights = saved(model, checkpoints, 10, 20)
    damage(tmp_path / "step-00000020" / file)
    with pytest.warns(UserWarning, match=r"step-00000020 is damaged \(\S+ (is missing|does not match its checksum)\)"):
        step, _ = checkpoints.restore(model)
    assert step == 10
    np.testing.assert_array_equal(weights[10][0], weights_of(model)[0])

    # Training goes on, with another interval even: the damaged one gives way, the whole ones stay.
    saved(model, checkpoints, 15)
    assert names(tmp_path) == ["step-00000010", "step-00000015"]


def test_a_damaged_one_is_replaced(tmp_path):
    model = make_model()
    checkpoints = Checkpoints(tmp_path)
    saved(model, checkpoints, 10, 20)
    flip_a_bit(tmp_path / "step-00000020/variables.npz")
    saved(model, checkpoints, 20)
    assert checkpoints.restore(model)[0] == 20
    assert names(tmp_path) == ["step-00000010", "step-00000020"]


def test_all_damaged(tmp_path):
    model = make_model()
    checkpoints = Checkpoints(tmp_path)
    saved(model, checkpoints, 10, 20)
    for path in tmp_path.iterdir():
        truncate(path / "variables.npz")
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(InputError, match="Every checkpoint in"):
        checkpoints.restore(model)


def test_another_architecture(tmp_path):
    saved(make_model(units=8), Checkpoints(tmp_path), 10)
    with pytest.raises(InputError, match=r"another architecture .*\[4, 8\] float32 there, .*\[4, 9\] float32 here"):
        Checkpoints(tmp_path).restore(make_model(units=9))
    with pytest.raises(InputError, match=r"\d+ variables there, \d+ here"):
        Checkpoints(tmp_path).restore(make_model(optimizer=keras.optimizers.SGD(WarmupDecay(0.1, 1, 2))))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.distribute")
def test_in_a_distribution_strategy(tmp_path):
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        weights = saved(make_model(), Checkpoints(tmp_path), 5)[5]
        another = make_model()
    # Outside of the scope, and the optimizer has no variables yet.
    assert Checkpoints(tmp_path).restore(another)[0] == 5
    for old, new in zip(weights, weights_of(another), strict=True):
        np.testing.assert_array_equal(old, new)


def test_needs_a_compiled_model(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(InputError, match="built and compiled"):
        Checkpoints(tmp_path).save(model, 1, {})
    with pytest.raises(InputError, match="At least one"):
        Checkpoints(tmp_path, keep=0)


def test_no_checkpoint_of_spoilt_weights(tmp_path):
    model = make_model()
    checkpoints = Checkpoints(tmp_path)
    saved(model, checkpoints, 10)
    model.layers[0].kernel.assign(np.full((4, 8), np.nan))
    with pytest.raises(TrainingStopped, match="kernel is not finite after step 20: try"):
        checkpoints.save(model, 20, {})
    assert names(tmp_path) == ["step-00000010"]


def test_killed_between_any_two_operations_on_files(tmp_path, monkeypatch):
    """Lets `save` die at its first, second, ... file operation; what is left must always restore."""
    model = make_model()
    operations = [(os, "rename"), (os, "fsync"), (os, "mkdir"), (os, "rmdir"), (os, "unlink"), (np, "savez")]

    def save_and_die_at(number, step):
        count = 0

        def counted(function):
            def run(*args, **kwargs):
                nonlocal count
                count += 1
                if count == number:
                    raise Killed
                return function(*args, **kwargs)

            return run

        with monkeypatch.context() as patch:
            for owner, name in operations:
                patch.setattr(owner, name, counted(getattr(owner, name)))
            randomise(model, step)
            Checkpoints(tmp_path).save(model, step, {})

    saved(model, Checkpoints(tmp_path), 1, 2)
    last, deaths = 2, 0
    for number in range(1, 100):
        step = last + 1
        try:
            save_and_die_at(number, step)
            break
        except Killed:
            deaths += 1
        restored, _ = Checkpoints(tmp_path).restore(model)
        assert restored in (step, last)
        found = weights_of(model)
        randomise(model, restored)
        for old, new in zip(found, weights_of(model), strict=True):
            np.testing.assert_array_equal(old, new)
        last = restored
    assert deaths >= 10
    # The save that nothing interrupted has swept all leftovers.
    assert names(tmp_path) == [f"step-{step:08d}" for step in (last, last + 1)]
