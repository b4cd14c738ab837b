#!/usr/bin/env python3
"""Draw a score over the epochs of several runs, from the metrics.csv that each of them wrote.

python -m benchmarks.curves val/PSNR curves.png "batch 1=runs/emoji_1" "batch 16=runs/emoji_16"
"""

import argparse
import csv
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 420, 70, 190, 40, 50
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd")
Curve = list[tuple[float, float]]


def read(run_dir: Path, metric: str) -> Curve:
    """(epoch, value) of the run's last start, epochs counted from 1; of several values in an epoch their mean.

    Raises:
        ValueError: there is no such run or metric.
    """
    files = sorted(run_dir.glob("csv/version_*/metrics.csv"), key=lambda path: int(path.parent.name.split("_")[1]))
    values: dict[int, list[float]] = {}
    for row in csv.DictReader(files[-1].open()) if files else ():
        if row.get(metric) and row.get("epoch"):
            values.setdefault(int(row["epoch"]) + 1, []).append(float(row[metric]))
    if not values:
        raise ValueError(f"there is no {metric} in {run_dir}/csv: name a folder that train.py wrote")
    return [(epoch, sum(each) / len(each)) for epoch, each in sorted(values.items())]


def ticks(low: float, high: float) -> list[float]:
    """Some five round numbers from low to high."""
    step = next(
        size * 10.0**power for power in range(-6, 7) for size in (1, 2, 5) if (high - low) / (size * 10.0**power) <= 6
    )
    first = -(-low // step)
    return [round((first + i) * step, 9) for i in range(7) if (first + i) * step <= high + 1e-9]


def draw(curves: dict[str, Curve], *, title: str, lines: dict[str, float]) -> Image.Image:
    """A chart: each curve over its share of the training, so that runs of different length can be compared.

    Args:
        curves: by the name in the legend.
        title: what the vertical axis shows.
        lines: levels to mark, by name.
    """
    values = [value for curve in curves.values() for _, value in curve] + list(lines.values())
    low, high = min(values), max(values)
    low, high = low - 0.05 * (high - low or 1.0), high + 0.05 * (high - low or 1.0)
    sheet = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def at(share: float, value: float) -> tuple[float, float]:
        return LEFT + share * (right - LEFT), bottom - (value - low) / (high - low) * (bottom - TOP)

    pen.text((LEFT, 10), title, "#222222", font)
    for tick in ticks(low, high):
        pen.line([at(0, tick), at(1, tick)], "#e4e4e4")
        pen.text((LEFT - 8, at(0, tick)[1]), f"{tick:g}", "#222222", font, anchor="rm")
    for percent in range(0, 101, 25):
        pen.text((at(percent / 100, low)[0], bottom + 8), f"{percent} %", "#222222", font, anchor="ma")
    pen.text(((LEFT + right) / 2, HEIGHT - 20), "of the epochs", "#222222", font, anchor="ma")
    for name, level in lines.items():
        pen.line([at(0, level), at(1, level)], "#888888", 1)
        pen.text((right + 6, at(1, level)[1]), name, "#888888", font, anchor="lm")
    for index, (name, curve) in enumerate(curves.items()):
        colour, last = COLOURS[index % len(COLOURS)], curve[-1][0]
        points = [at(epoch / last, value) for epoch, value in curve]
        pen.line(points, colour, 2) if len(points) > 1 else pen.circle(points[0], 3, colour)
        top = TOP + 20 * index
        pen.line([(right + 6, top), (right + 26, top)], colour, 3)
        pen.text((right + 32, top), f"{name}: {curve[-1][1]:.4g}", "#222222", font, anchor="lm")
    return sheet


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metric", help="a column of metrics.csv, such as val/PSNR or train/G_l1")
    parser.add_argument("output", type=Path)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN_DIR")
    parser.add_argument("--line", action="append", default=[], metavar="NAME=LEVEL", help="a level to mark")
    args = parser.parse_args(arguments)
    runs = [each.rpartition("=") for each in args.runs]
    lines = [each.rpartition("=") for each in args.line]
    curves = {name: read(Path(folder), args.metric) for name, _, folder in runs}
    draw(curves, title=args.metric, lines={name: float(level) for name, _, level in lines}).save(args.output)
    print(f"written to {args.output}")


if __name__ == "__main__":
    main()
