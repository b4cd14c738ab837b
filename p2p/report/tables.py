"""Tables for the terminal."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table

from p2p.profiling.clock import COLOURS, Clock


def show(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print a table: first column to the left, the others to the right."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index else "left", no_wrap=index == 0)
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table)


def show_scores(scores: dict[str, dict[str, float] | None]) -> None:
    """Print a row of L1, PSNR and SSIM for each named set of scores that is there."""
    rows = [[name, f"{s['L1']:.4f}", f"{s['PSNR']:.2f}", f"{s['SSIM']:.3f}"] for name, s in scores.items() if s]
    show("validation, images in [-1, 1]", ["", "L1", "PSNR dB", "SSIM"], rows)


def show_stages(clock: Clock) -> None:
    """Print seconds and images/s of each stage that ran, end to end last.

    A stage's seconds are added up over its threads, so where stages overlap they exceed the total.
    """
    rows = []
    for stage in COLOURS:
        if stage in clock.seconds:
            seconds, images = clock.seconds[stage], clock.images[stage]
            counts = ["", ""] if stage in ("init", "warmup") else [str(images), f"{images / seconds:.1f}"]
            rows.append([stage, counts[0], f"{seconds:.3f}", counts[1]])
    show("stages", ["", "images", "seconds", "images/s"], rows)


def show_considered(rows: list[dict[str, str | float | None]], *, batch_size: int) -> None:
    """Print what `p2p.deploy.fastest` has tried: a table of what ran, the fastest first, and why the others did not."""
    ran = sorted((row for row in rows if row["worst_psnr"] is not None), key=lambda row: row["batch_ms"] or math.inf)
    columns = {"precision": "{}", "build_s": "{:.1f}", "batch_ms": "{:.3g}", "images_per_s": "{:,.0f}"}
    columns |= {"worst_psnr": "{:.1f}", "verdict": "{}"}
    cells = []
    for row in ran:
        values = ["" if row[key] is None else form.format(row[key]) for key, form in columns.items()]
        cells.append([row["backend"], *values])
    header = ["backend", "dtype", "build s", "ms/batch", "images/s", "worst dB", ""]
    show(f"backends at batch_size={batch_size}", header, cells)
    for row in rows:
        if row not in ran:
            print(f"{row['backend']} left out: {row['verdict']}")


def scores_of(results: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """What `trainer.validate` returns, {"val/L1": ...}, grouped by prefix: {"val": {"L1": ...}}."""
    grouped: dict[str, dict[str, float]] = {}
    for key, value in results[0].items():
        prefix, _, name = key.partition("/")
        grouped.setdefault(prefix, {})[name] = value
    return grouped
