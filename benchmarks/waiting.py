#!/usr/bin/env python3
"""How should threads of torch wait for each other on a CPU? Training steps, alone and beside busy processes.

    python -m benchmarks.waiting [--repeats 3] [--busy 0 2] [--output FILE]

Threads of libgomp spin before they sleep: always with OMP_WAIT_POLICY=ACTIVE, never with PASSIVE, and for
GOMP_SPINCOUNT turns if that is set (the default is 300,000). libgomp reads both when it is loaded, so each row is a
process of its own. It trains the demo's network on the shipped pairs, and the row has the images/s of its second epoch.
Rows take turns.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.record import ROOT, commit, head
from p2p.report.tables import show

WAYS = {"default": {}, "PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"}} | {
    f"{turns:,} turns": {"GOMP_SPINCOUNT": str(turns)} for turns in (1_000, 10_000, 100_000)
}
SETTINGS = ["epochs=2", "trainer=cpu", "~logger", "~callbacks.samples", "+trainer.limit_val_batches=1"]
TRAIN = "import sys, p2p; p2p.train(sys.argv[1:])"  # train.py would choose a way by itself
BUSY = "while True: pass"


def images_per_second(way: dict[str, str], *, batches: int) -> float:
    """Of the second epoch of a training."""
    unset = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    with tempfile.TemporaryDirectory() as folder:
        arguments = [f"run_dir={folder}", f"+trainer.limit_train_batches={batches}", *SETTINGS]
        command = [sys.executable, "-c", TRAIN, *arguments]
        done = subprocess.run(command, cwd=ROOT, env=unset | way, capture_output=True, text=True, check=True)
    return float(re.findall(r"([\d.]+) images/s", done.stdout)[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 2], help="processes beside it")
    parser.add_argument("--batches", type=int, default=32, help="of an epoch")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/waiting-cpu.json")
    parser.add_argument("--commit", default=commit(), help="where the code is no git checkout")
    options = parser.parse_args()
    result = head(options.commit) | {"rows": []}
    for busy in options.busy:
        others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
        try:
            measured: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(options.repeats):
                for name, way in WAYS.items():
                    measured[name].append(images_per_second(way, batches=options.batches))
        finally:
            for other in others:
                other.kill()
        for name, speeds in measured.items():
            row = {"way": name, "busy": busy, "images_per_second": statistics.median(speeds), "all": speeds}
            result["rows"].append(row)
    cells = [
        [each["way"], str(each["busy"]), f"{each['images_per_second']:.2f}", " ".join(f"{s:.2f}" for s in each["all"])]
        for each in result["rows"]
    ]
    show("training on a CPU, medians", ["threads wait", "busy processes", "images/s", "each"], cells)
    options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
