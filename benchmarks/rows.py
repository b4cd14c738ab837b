"""The rows of `benchmarks.pipeline`: read from its command line, and printed as a table."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import NamedTuple

from p2p.system.cores import available_cores

FORMATS = ("jpg", "png")


class Row(NamedTuple):
    """What is measured: a codec, or a peer, that writes files of a format, by batches of a size, on so many cores."""

    codec: str
    format: str
    batch: int
    cores: int


def rows(text: str, *, codecs: list[str]) -> list[Row]:
    """Read `CODEC:FORMAT:BATCH[:CORES],...`; without CORES all that are there.

    Raises:
        ArgumentTypeError: a row is none of these, or asks for more cores than there are.
    """
    return [_row(each, codecs) for each in text.split(",")]


def _row(text: str, codecs: list[str]) -> Row:
    parts, available = text.split(":"), available_cores()
    try:
        codec, format, batch, cores = [*parts, available] if len(parts) == 3 else parts
        row = Row(codec, format, int(batch), int(cores))
        if codec not in codecs or format not in FORMATS or row.batch < 1 or row.cores < 1:
            raise ValueError
    except ValueError:
        known = f"CODEC is one of {', '.join(codecs)}, FORMAT one of {', '.join(FORMATS)}"
        raise ArgumentTypeError(f"{text} is not CODEC:FORMAT:BATCH or CODEC:FORMAT:BATCH:CORES: {known}") from None
    if row.cores > available:
        raise ArgumentTypeError(f"{text} asks for {cores} cores, and there are {available}")
    return row


def table(measured: list[dict]) -> str:
    """All rows in Markdown, with how many times the peer's speed each has: of equal format, batch and cores."""
    peer = {_place(row): row["images_per_s"] for row in measured if row["codec"] == "peer" and "failed" not in row}
    lines = ["| codec | format | batch | cores | images/s | cores busy | times the peer |", "|---" * 7 + "|"]
    for row in measured:
        if "failed" in row:
            speed, busy, times = "failed", "", ""
        else:
            speed, busy = f"{row['images_per_s']:,.0f}", f"{row['cores_busy']:.1f}"
            times = f"{row['images_per_s'] / peer[_place(row)]:.2f}" if _place(row) in peer else ""
        cells = row["codec"], row["format"], row["batch"], row["cores"], speed, busy, times
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _place(row: dict) -> tuple:
    return row["format"], row["batch"], row["cores"]
