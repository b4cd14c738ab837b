import json

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import ladder

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def run(*options: str) -> dict:
        path = tmp_path / "ladder.json"
        quick = ["--images", "5", "--batch", "2", "--repeats", "2", "--image-size", "32"]
        monkeypatch.setattr("sys.argv", ["ladder", *quick, "--commit", "abc", "--output", str(path), *options])
        ladder.main()
        return json.loads(path.read_text())

    return run


def test_every_rung_is_a_row_or_says_why_not(run, capsys):
    record = run()
    rows = {row["rung"]: row for row in record["rows"]}
    assert list(rows) == [
        "sequential",
        "without saving",
        "larger batches",
        "loading in threads",
        "loading overlapped",
        "saving overlapped",
        "everything, CV-CUDA too",
    ]
    assert {name for name, row in rows.items() if "left_out" in row} == {"everything, CV-CUDA too"}
    for name, row in rows.items():
        if "left_out" in row:
            assert row["left_out"] == "it needs a GPU"
            continue
        assert row["images_per_s"] > 0 and row["limit"] in row["stages"]
        assert ("encode" in row["stages"]) == row["saves"] == (name in ("sequential", "saving overlapped"))
        assert row["difference"] in ((0, 1) if row["saves"] else (None,))  # other batches, other sums
        slowest = min(row["stages"].values())  # one worker's; nothing overlaps in the sequential rungs
        assert row["images_per_s"] < slowest or "overlapped" in name or "threads" in name
    out = capsys.readouterr().out
    assert "everything, CV-CUDA too left out: it needs a GPU" in out
    assert max(map(len, out.splitlines()[:-1])) <= 80


def test_rungs_can_be_chosen_and_the_first_is_what_they_are_compared_with(run):
    assert [row["rung"] for row in run("--rungs", "larger batches")["rows"]] == ["sequential", "larger batches"]


def test_an_option_that_is_not_there_leaves_its_rung_out(run, monkeypatch, capsys):
    rungs = [ladder.Rung("first", ["batch_size=1"]), ladder.Rung("second", ["transform=no_such"])]
    monkeypatch.setattr(ladder, "ladder", lambda: rungs)
    assert run()["rows"][1]["left_out"].startswith("transform=no_such is not known")
    assert "second left out: transform=no_such is not known" in capsys.readouterr().out


def test_files_are_compared_by_bytes_and_then_by_pixels(tmp_path):
    for name, value, level in (("a", 10, 1), ("b", 10, 9), ("c", 13, 1)):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((20, 20, 3), value, np.uint8)).save(tmp_path / name / "x.png", compress_level=level)
    assert (tmp_path / "a/x.png").read_bytes() != (tmp_path / "b/x.png").read_bytes()
    differences = [ladder.difference(tmp_path / "a", tmp_path / other) for other in "abc"]
    assert differences == [0, 0, 3]
