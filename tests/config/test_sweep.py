"""A sweep goes on after a job that failed, and says at its end what became of all."""

import csv
import os
import runpy
import sys

import pytest

from p2p.commands.results import Translated
from tests.conftest import ROOT


@pytest.fixture
def sweep(monkeypatch, tmp_path):
    """`sweep(main)` is one of infer.py over batch_size=1,2,3, whose jobs are calls of `main`; returns its rows."""

    def run(main):
        monkeypatch.setattr("p2p.commands.infer.main", main)
        name = f"name={os.path.relpath(tmp_path, ROOT / 'runs')}"
        monkeypatch.setattr(sys, "argv", ["infer.py", "-m", "batch_size=1,2,3", name])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        try:
            runpy.run_path(str(ROOT / "infer.py"), run_name="__main__")
        finally:
            with (tmp_path / "sweep.csv").open() as file:
                rows = list(csv.DictReader(file))
        return rows

    return run


def test_the_best_is_first(sweep, tmp_path, capsys):
    rows = sweep(lambda cfg: Translated(tmp_path, written=1, skipped=0, score=10.0 * cfg.batch_size))
    assert [(row["rank"], row["batch_size"], row["images/s"]) for row in rows] == [
        ("1", "3", "30.0"),
        ("2", "2", "20.0"),
        ("3", "1", "10.0"),
    ]
    assert "sweep of 3 jobs, the best first" in capsys.readouterr().out


def test_a_job_that_fails_stands_in_the_table_with_the_reason(sweep, tmp_path, capsys):
    def main(cfg):
        if cfg.batch_size == 2:
            raise ValueError("two is too many: use 1")
        return Translated(tmp_path, written=1, skipped=0, score=float(cfg.batch_size))

    with pytest.raises(SystemExit) as stopped:
        sweep(main)
    assert stopped.value.code.startswith("error: 1 of 3 jobs failed: two is too many: use 1; ")
    said = capsys.readouterr()
    assert said.err.startswith("error: two is too many: use 1\n") and "sweep of 3 jobs" in said.out
    with (tmp_path / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["batch_size"], row["reason"]) for row in rows] == [
        ("3", ""),
        ("1", ""),
        ("2", "two is too many: use 1"),
    ]


def test_a_bug_keeps_its_stack_trace_and_the_table_is_shown_all_the_same(sweep, capsys):
    def main(cfg):
        raise KeyError("bug")

    with pytest.raises(KeyError, match="bug"):
        sweep(main)
    assert "sweep of 3 jobs" in capsys.readouterr().out


def test_ctrl_c_ends_the_sweep_and_shows_what_is_done(sweep, tmp_path, capsys):
    def main(cfg):
        if cfg.batch_size == 2:
            raise KeyboardInterrupt
        return Translated(tmp_path, written=1, skipped=0, score=1.0)

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        sweep(main)
    assert "sweep of 1 job," in capsys.readouterr().out
