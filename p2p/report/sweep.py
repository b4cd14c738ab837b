"""The jobs of a sweep side by side: a ranked table, `sweep.csv` and a page."""

from __future__ import annotations

import csv
import io
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from p2p.config.sweep import jobs_of
from p2p.report.page import address, publish
from p2p.report.picture import columns_of
from p2p.report.tables import score_text, show
from p2p.report.thumbnails import longest_side, strip
from p2p.system import atomic
from p2p.system.plural import counted

HIGHEST = 1024  # pixels of a column of sample pictures
SHORT, SAID = 40, 10  # characters of a reason that is in the table, and longer ones that are below it


def summarize(folder: Path, mark: str) -> str | None:
    """Print the jobs of a sweep, and write its `sweep.csv`, `sweep.html` and `index.html`.

    Args:
        folder: of the sweep.
        mark: of its jobs' records; those of earlier sweeps in this folder are removed.

    Returns:
        A sentence about the jobs that failed; None where none did, or none has ended.
    """
    folder = Path(os.path.relpath(folder))  # as it is to be shown
    records = jobs_of(folder)
    jobs = ranked([job for job in records.values() if job.get("sweep") == mark])
    if not jobs:
        return None
    for path, job in records.items():
        if job.get("sweep") != mark:
            path.unlink()
    monitor = jobs[0]["monitor"]
    keys = list(dict.fromkeys(key for job in jobs for key in job["overrides"]))
    varied = [key for key in keys if len({job["overrides"].get(key) for job in jobs}) > 1]
    cells = [[job["overrides"].get(key, "") for key in varied] for job in jobs]
    happened = [_in_short(job) for job in jobs]
    ends = [[_score(job), f"{job['seconds'] / 60:.1f}", what] for job, what in zip(jobs, happened, strict=True)]
    rows = [[str(index), *row, *end] for index, (row, end) in enumerate(zip(cells, ends, strict=True), start=1)]
    header = ["", *last_words(varied), monitor, "minutes", "what happened"]
    used = len(header) if any(happened) else -1
    show(f"sweep of {counted(len(jobs), 'job')}, the best first", header[:used], [row[:used] for row in rows])
    failed = [job for job in jobs if job["reason"]]  # the last ones
    if len(failed) > 1:  # the sentence says the reason of one
        for rank, job in enumerate(failed[:SAID], start=len(jobs) - len(failed) + 1):
            if len(job["reason"]) > SHORT:
                print(f"row {rank} failed: {job['reason']}")
    _write_table(folder / "sweep.csv", jobs, keys)
    page = publish("sweep", folder, title=f"p2p: {folder.name}", data=_data(jobs, varied or keys, folder))
    print(f"look at {page} or {folder / 'sweep.csv'}")
    if not failed:
        return None
    words = zip(varied, last_words(varied), strict=True)
    name = " ".join(f"{word}={failed[0]['overrides'].get(key, '')}" for key, word in words)
    reason = f"{name}: {failed[0]['reason']}" if name else failed[0]["reason"]
    return f"{len(failed)} of {counted(len(jobs), 'job')} failed: {reason}; {folder / 'sweep.csv'} has all reasons"


def last_words(keys: list[str]) -> list[str]:
    """What stands behind the last dot of each key, or all of it where two would be the same."""
    words = [key.rpartition(".")[2] for key in keys]
    return [word if words.count(word) == 1 else key for key, word in zip(keys, words, strict=True)]


def ranked(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The best first, in the order of the jobs where they are equal; those without a score last."""
    sign = -1 if any(job["mode"] == "max" for job in jobs) else 1
    return sorted(jobs, key=lambda job: (job["score"] is None, sign * (job["score"] or 0.0)))


def _score(job: dict[str, Any]) -> str:
    return "" if job["score"] is None else score_text(job["score"])


def _in_short(job: dict[str, Any]) -> str:
    if job["reason"]:
        return job["reason"] if len(job["reason"]) <= SHORT else "failed"
    return job.get("note") or ""


def _write_table(path: Path, jobs: list[dict[str, Any]], keys: list[str]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["rank", *keys, jobs[0]["monitor"], "minutes", "folder", "reason"])
    for rank, job in enumerate(jobs, start=1):
        values = [job["overrides"].get(key, "") for key in keys]
        minutes = f"{job['seconds'] / 60:.2f}"
        table.writerow([rank, *values, job["score"], minutes, job["folder"], job["reason"] or job.get("note")])
    atomic.write(path, text.getvalue())


def _data(jobs: list[dict[str, Any]], varied: list[str], folder: Path) -> dict[str, Any]:
    """What the page shows."""
    used = [job["folder"] for job in jobs]
    # Samples of a folder that jobs share, as those of infer.py do, are not of each job.
    columns = [_samples(Path(each)) if used.count(each) == 1 else None for each in used]
    longest = min(HIGHEST, longest_side(2 + len(jobs)))
    pictures = [None if each is None else strip([each[1]], longest=longest) for each in columns]
    first = next((each for each in columns if each is not None), None)
    beside = {} if first is None else {"input": first[0], "target": first[2]}
    rows = [
        {
            "values": [job["overrides"].get(key, "") for key in varied],
            "score": job["score"],
            "minutes": job["seconds"] / 60,
            "folder": address(job["folder"], folder),
            "reason": job["reason"],
            "note": job.get("note"),
            "picture": picture,
        }
        for job, picture in zip(jobs, pictures, strict=True)
    ]
    return {
        "keys": varied,
        "monitor": jobs[0]["monitor"],
        "jobs": rows,
        "beside": {name: strip([column], longest=longest) for name, column in beside.items()},
        "settings": {},
    }


def _samples(run_dir: Path) -> list[np.ndarray] | None:
    """Inputs, outputs and targets of a run's last sample picture, each a column; None where there is none."""
    with suppress(OSError):
        paths = sorted((run_dir / "samples").glob("epoch_*.png"))
        if paths:
            with Image.open(paths[-1]) as sheet:
                return [np.asarray(column) for column in columns_of(sheet.convert("RGB"), 3)]
    return None
