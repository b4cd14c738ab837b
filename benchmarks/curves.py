#!/usr/bin/env python3
"""Draw a score over the training of several runs, from the metrics.csv that each of them wrote.

python -m benchmarks.curves val/PSNR curves.png "batch 1=runs/emoji_1" "batch 16=runs/emoji_16"
"""

import argparse
import csv
from pathlib import Path

from matplotlib import pyplot

from p2p.system.atomic import replacing

Curve = list[tuple[float, float]]


def read(run_dir: Path, metric: str) -> Curve:
    """(epoch, value) of the run's last start, epochs counted from 1; of several values in an epoch their mean.

    What was measured before training is left out.

    Raises:
        ValueError: there is no such run or metric.
    """
    files = sorted(run_dir.glob("csv/version_*/metrics.csv"), key=lambda path: int(path.parent.name.split("_")[1]))
    values: dict[int, list[float]] = {}
    for row in csv.DictReader(files[-1].open()) if files else ():
        if row.get(metric) and row.get("epoch") and not row.get(f"unchanged/{metric.rpartition('/')[2]}"):
            values.setdefault(int(row["epoch"]) + 1, []).append(float(row[metric]))
    if not values:
        raise ValueError(f"there is no {metric} in {run_dir}/csv: name a folder that train.py wrote")
    return [(epoch, sum(each) / len(each)) for epoch, each in sorted(values.items())]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metric", help="a column of metrics.csv, such as val/PSNR or train/G_l1")
    parser.add_argument("output", type=Path)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN_DIR")
    parser.add_argument("--line", action="append", default=[], metavar="NAME=LEVEL", help="a level to mark")
    args = parser.parse_args(arguments)
    figure, axes = pyplot.subplots(figsize=(9, 4), dpi=120, layout="constrained")
    for name, _, folder in (each.rpartition("=") for each in args.runs):
        curve = read(Path(folder), args.metric)
        last = curve[-1][0]  # shares of the training, so that runs of different length can be compared
        shares, values = [100 * epoch / last for epoch, _ in curve], [value for _, value in curve]
        axes.plot(shares, values, marker=".", label=f"{name}, {last} epochs: {values[-1]:.4g}")
    for name, _, level in (each.rpartition("=") for each in args.line):
        axes.axhline(float(level), color="grey", linewidth=1)
        axes.annotate(name, (100, float(level)), (-4, 3), textcoords="offset points", color="grey", ha="right")
    axes.set(xlabel="% of the epochs", ylabel=args.metric)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    with replacing(args.output) as partial:
        figure.savefig(partial, format=args.output.suffix[1:])
    print(f"written to {args.output}")


if __name__ == "__main__":
    main()
