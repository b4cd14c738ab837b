"""The jobs of a sweep side by side."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from p2p.report.page import data_of
from p2p.report.picture import columns_of, contact_sheet
from p2p.report.sweep import ranked, summarize


def job(folder, number, score, *, reason=None, mode="min", **overrides):
    record = {"overrides": {"name": "x", **overrides}, "folder": str(folder / f"job{number}"), "score": score}
    record |= {"monitor": "val/L1", "mode": mode, "seconds": 90.0, "reason": reason, "sweep": "now", "number": number}
    (folder / ".sweep").mkdir(exist_ok=True)
    (folder / ".sweep" / f"{number:06d}.json").write_text(json.dumps(record))
    return record


def sample(folder, number, value):
    rows = [[np.full((16, 16, 3), each, np.uint8) for each in (10, value, 30)]] * 2
    (folder / f"job{number}/samples").mkdir(parents=True)
    contact_sheet(rows, header=["input", "output", "target"]).save(folder / f"job{number}/samples/epoch_0001.png")


def test_a_table_and_a_page_rank_the_jobs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number, (score, weight) in enumerate([(0.3, "1"), (0.1, "10"), (None, "100"), (0.2, "1000")]):
        job(tmp_path, number, score, reason=None if score else "no <memory>", **{"model.lambda_l1": weight})
        if score:
            sample(tmp_path, number, 100 + number)
    sentence = summarize(tmp_path, "now")
    assert sentence == "1 of 4 jobs failed: lambda_l1=100: no <memory>; sweep.csv has all reasons"
    out = capsys.readouterr().out
    assert out.index("0.1000") < out.index("0.2000") < out.index("0.3000") < out.index("no <memory>")
    assert "look at index.html or sweep.csv" in out and "name" not in out  # which is the same for all
    with (tmp_path / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["model.lambda_l1"] for row in rows] == ["10", "1000", "1", "100"]
    assert (rows[0]["val/L1"], rows[0]["minutes"], rows[3]["reason"]) == ("0.1", "1.50", "no <memory>")
    data = data_of((tmp_path / "index.html").read_text())
    assert (data["keys"], data["monitor"]) == (["model.lambda_l1"], "val/L1")
    assert [each["folder"] for each in data["jobs"]] == ["job1", "job3", "job0", "job2"]
    assert [each["picture"] is None for each in data["jobs"]] == [False, False, False, True]
    assert data["beside"].keys() == {"input", "target"}


def test_samples_of_a_folder_that_jobs_share_are_of_none_of_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        record = job(tmp_path, number, 0.1, batch_size=str(number))
        record["folder"] = str(tmp_path / "job0")
        (tmp_path / ".sweep" / f"{number:06d}.json").write_text(json.dumps(record))
    sample(tmp_path, 0, 100)
    summarize(tmp_path, "now")
    data = data_of((tmp_path / "index.html").read_text())
    assert [each["picture"] for each in data["jobs"]] == [None, None] and not data["beside"]


def test_where_more_is_better_the_largest_is_first():
    scores = [3.0, None, 5.0, 4.0]
    jobs = [{"score": score, "mode": "max"} for score in scores]
    assert [each["score"] for each in ranked(jobs)] == [5.0, 4.0, 3.0, None]


def test_a_sweep_of_which_no_job_has_ended_leaves_nothing(tmp_path):
    assert summarize(tmp_path, "now") is None and not list(tmp_path.iterdir())


@pytest.mark.parametrize("side", [16, 150, 256])
def test_the_columns_of_a_sheet_are_those_that_it_was_made_of(side):
    frames = [np.full((side, side, 3), value, np.uint8) for value in (10, 20, 30)]
    sheet = contact_sheet([frames], header=["a", "b", "c"])
    assert all((np.asarray(column) == frame).all() for column, frame in zip(columns_of(sheet, 3), frames, strict=True))
    assert isinstance(columns_of(sheet, 3)[0], Image.Image)
