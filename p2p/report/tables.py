"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from rich.console import Console
from rich.table import Table

from p2p.profiling.clock import COLOURS, WORK, Clock
from p2p.report.limit import limit

LABELS = {"init": "start", "warmup": "warm-up", "e2e": "end to end"}  # of stages, where their names say too little


def show(
    title: str, header: list[str], rows: list[list[str]], *, bold: str | None = None, long_names: bool = False
) -> None:
    """Print a table: first column to the left, the others to the right; the row named `bold` stands out.

    In a terminal that is too narrow other columns than the first are wrapped; with `long_names` the first alone is.
    """
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index else "left", no_wrap=bool(index) == long_names, overflow="fold")
    for row in rows:
        table.add_row(*row, style="bold" if row[0] == bold else None)
    Console(highlight=False).print(table)


def show_scores(scores: dict[str, dict[str, float] | None]) -> None:
    """Print a row for each named set of scores that is there; all sets have the same."""
    there = {name: each for name, each in scores.items() if each}
    header = ["", *next(iter(there.values()))]
    rows = [[name, *map(score_text, each.values())] for name, each in there.items()]
    show("validation scores (images in [-1, 1])", header, rows)


def score_text(score: float) -> str:
    """Four decimals of a share such as SSIM, two of what is larger, such as decibels."""
    return f"{score:.4f}" if abs(score) < 1 else f"{score:.2f}"


def show_stages(clock: Clock, *, format: str | None = None, done: Collection[str] = ()) -> None:
    """Print what each stage that ran has done, end to end last, and what limited the run that wrote such files.

    A stage's seconds are added up over its workers, so where stages overlap they exceed the total. `busy` is their
    share of the workers' time; "each" is the speed of one worker while it works, "in all" that of all together.
    `format` and `done`: see `p2p.report.limit.limit`.
    """
    wall = clock.seconds.get("e2e", 0.0)
    rows = []
    for stage in (stage for stage in COLOURS if stage in clock.seconds):
        seconds, images = clock.seconds[stage], clock.images[stage]
        cells = ["", f"{seconds:.3f}", "", "", "", ""]
        if stage in WORK:
            workers = len(clock.lanes.get(stage, (stage,)))
            busy = f"{min(1, seconds / (wall * workers)):.0%}" if wall else ""
            speeds = [_speed(images, seconds), _speed(images * workers, seconds)]
            cells = [str(images), cells[1], str(workers), busy, *speeds]
        elif stage == "e2e":
            cells = [str(images), cells[1], "", "", "", _speed(images, seconds)]
        rows.append([LABELS.get(stage, stage), *cells])
    slowest, sentence = limit(clock, format=format, done=done) or (None, "")
    header = ["", "images", "seconds", "workers", "busy", "images/s each", "in all"]
    show("stages", header, rows, bold=slowest)
    if sentence:
        Console(highlight=False, markup=False).print(sentence)


def _speed(images: int, seconds: float) -> str:
    speed = images / seconds if seconds else 0.0
    return f"{speed:,.0f}" if speed >= 1000 else f"{speed:.1f}"


def show_considered(rows: list[dict[str, Any]], *, batch_size: int) -> None:
    """Print what `p2p.deploy.fastest` has tried: a table of what ran, the fastest first, and why the others did not."""
    ran = sorted((row for row in rows if row["batch_ms"] is not None), key=lambda row: row["batch_ms"])
    columns = {"precision": "{}", "build_s": "{:.1f}", "batch_ms": "{:,.2f}", "images_per_s": "{:,.0f}"}
    columns |= {"worst_psnr": "{:.1f}", "verdict": "{}"}
    cells = [[str(row["backend"]), *(form.format(row[key]) for key, form in columns.items())] for row in ran]
    for texts in cells:
        if " " in texts[-1]:  # a reason, which is printed below
            texts[-1] = "refused"
    header = ["backend", "precision", "build\ns", "ms per\nbatch", "images\nper s", "PSNR\ndB", "verdict"]
    title = f"backends at batch_size={batch_size}; PSNR of the worst image against fp32"
    show(title, header, cells, long_names=True)
    for row in rows:
        if row not in ran or " " in row["verdict"]:
            print(f"{row['backend']} {'refused' if row in ran else 'left out'}: {row['verdict']}")


def scores_of(logged: dict[str, float]) -> dict[str, dict[str, float]]:
    """What `trainer.validate` returns for a loader, {"val/L1": ...}, grouped by prefix: {"val": {"L1": ...}}."""
    grouped: dict[str, dict[str, float]] = {}
    for key, value in logged.items():
        prefix, _, name = key.partition("/")
        grouped.setdefault(prefix, {})[name] = value
    return grouped
