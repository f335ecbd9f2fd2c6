"""Learning curves of several runs in one picture."""

import os

import pytest

from recipes import compare_runs
from vq_keras.errors import InputError
from vq_keras.training import runs


def run(run_dir, table):
    runs.claim(run_dir, {})
    (run_dir / runs.HISTORY).write_text(table)
    return str(run_dir)


def test_the_history_is_the_table_of_the_run(tmp_path):
    run_dir = run(tmp_path / "run", "step,loss,codes_in_use\n10,1.5,\n20,1.25,7\n")
    assert runs.load_history(run_dir) == [{"step": 10, "loss": 1.5}, {"step": 20, "loss": 1.25, "codes_in_use": 7}]


def test_runs_of_different_lengths_share_a_picture(tmp_path, capsys):
    one = run(tmp_path / "one", "step,loss\n10,1.5\n20,1.25\n")
    other = run(tmp_path / "other", "step,loss,codes_in_use\n10,2.5,7\n")
    picture = tmp_path / "both.png"
    assert compare_runs.main(["--runs", one, other, "--out", str(picture)]) == 0
    assert picture.stat().st_size > 5000
    assert capsys.readouterr().out == f"{picture}\n"


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (None, "has no history.csv yet: let its training reach the end of an interval"),
        ("step,loss\n10,much\n", "history.csv is damaged; continue the run"),
    ],
)
def test_no_history(tmp_path, table, sentence):
    run_dir = run(tmp_path / "run", table or "")
    if table is None:
        os.remove(tmp_path / "run" / runs.HISTORY)
    with pytest.raises(InputError, match=sentence):
        runs.load_history(run_dir)


def test_names_must_differ(tmp_path, capsys):
    table = "step,loss\n10,1.5\n"
    paths = [run(tmp_path / side / "run", table) for side in ("a", "b")]
    assert compare_runs.main(["--runs", *paths, "--out", str(tmp_path / "c.png")]) == 2
    assert "two of the runs have one name" in capsys.readouterr().err
