"""The plan of the recipes, on made-up scores, and the measure of the grid on pictures that have one."""

import pytest
import torch

from benchmarks.grid import grid
from benchmarks.recipe_plan import CHANGES, SEEDS, claim, next_run, settle
from benchmarks.recipe_report import table


def play(folder, worth, *, times, limit=10_000.0):
    """All runs in order, two workers in turns; `worth` gives PSNR and grid of some changes."""
    done, left, running = [], limit, []
    while True:
        run = next_run(folder, left, seconds=times[0], ship=times[1])
        if run is None or (run.name == "wait" and not running):
            return done
        if run.name != "wait":
            assert claim(folder, run) and not claim(folder, run)
            done.append(run)
            running.append(run)
        if len(running) == 2 or run.name == "wait":
            first = running.pop(0)
            psnr, lines = worth(first.changes)
            row = {"name": first.name, "seed": first.seed, "changes": first.changes}
            settle(folder, row | {"PSNR": psnr, "SSIM": 0.7, "grid": lines})
            left -= first.seconds / 2


def worth(changes):
    gains = {"cosine": 0.3, "constant rate": 0.1, "batch 4, instance norm": 0.2, "lsgan": -0.1, "resize last 3": -0.1}
    pixels = 20.0 + sum(gains.get(name, -0.5) for name in changes) - 0.4 * (len(changes) == 3)
    return pixels, 0.2 if "resize last 3" in changes else 2.0


def test_the_best_of_each_kind_together_and_the_best_of_all_again(tmp_path):
    done = play(tmp_path, worth, times=(20, 90))
    names = [run.name for run in done if run.seed == 0]
    assert names[: 1 + len(CHANGES)] == ["paper", *CHANGES]
    # The grid counts, so that resizing is the first one; all three together are worth less.
    assert names[1 + len(CHANGES) :] == [
        "resize last 3 + cosine",
        "resize last 3 + batch 4, instance norm",
        "resize last 3 + cosine + batch 4, instance norm",
        "best, longer",
        "paper, longer",
    ]
    best = ("resize last 3", "cosine")
    assert [(run.seed, run.changes) for run in done if run.name == "best"] == [(seed, best) for seed in SEEDS]
    assert [run.seed for run in done if run.name == "paper"] == [0, *SEEDS]
    last = {run.name: run for run in done if run.kept}
    assert last["best, longer"].changes == best and last["paper, longer"].seconds == 90
    assert last["best, longer"].schedule == "cosine" and "scheduler=cosine" in last["best, longer"].overrides
    assert last["paper, longer"].schedule == "linear"


def test_where_time_runs_out_the_best_so_far_is_trained_longer(tmp_path):
    done = play(tmp_path, worth, times=(20, 90), limit=200.0)
    assert [run.name for run in done][-2:] == ["best, longer", "paper, longer"]
    assert len(done) < 12 and done[-2].changes == ("batch 4, instance norm",)


@pytest.mark.parametrize("period", [2, 4])
def test_a_grid_is_measured_in_levels_where_the_target_is_flat(period):
    target = torch.full((1, 3, 32, 32), 0.25)
    target[..., 16:] = torch.rand(16)  # not flat
    wave = torch.cos(2 * torch.pi * torch.arange(32) / period)
    amplitude = 3 / 127.5
    output = target + amplitude * wave[:, None]
    assert grid(target, target) == pytest.approx(0.0, abs=1e-3)
    assert grid(output, target) == pytest.approx(3 * (1.0 if period == 2 else 0.5**0.5), rel=1e-3)
    assert grid(torch.ones(1, 3, 16, 16) + output[..., :16, :16], torch.ones(1, 3, 16, 16)) == 0.0  # all background


def test_the_table_has_a_line_for_each_recipe_and_the_range_of_its_seeds():
    scores = {"SSIM": 0.75, "L1": 0.1, "grid": 1.0, "images_per_s": 1234.0, "epochs": 2.0}
    rows = [
        {"name": name, "seed": seed, "changes": [], "PSNR": psnr} | scores
        for name, seed, psnr in (("paper", 0, 19.0), ("paper", 1, 20.0), ("cosine", 0, 19.5), ("mine", 0, 21.0))
    ]
    lines = table([*rows, {"name": "hinge", "seed": 0, "error": "ValueError: no"}], []).splitlines()[2:]
    assert [line.split(" | ")[:4] for line in lines[:3]] == [
        ["| the paper's recipe", "1,234", "2.0", "19.50 (19.00 to 20.00)"],
        ["| cosine", "1,234", "2.0", "19.50"],
        ["| mine", "1,234", "2.0", "21.00"],
    ]
    assert len(lines) == 4 and lines[3].startswith("| hinge | failed: ValueError: no |")
