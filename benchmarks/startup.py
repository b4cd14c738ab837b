#!/usr/bin/env python3
"""How long do whole commands take, beside `import torch` alone? Processes that take turns.

    python -m benchmarks.startup [--before FOLDER] [--repeats 5] [--image-size 128] [--images 16 50] [--output FILE]

Each checkout (this one, and a worktree of an earlier commit, if there is one) trains for a moment and exports with its
own commands into a temporary folder; then the rows take turns. On a CPU the backend is exported_program; on a GPU they
are eager, triton and torch_tensorrt, with fewer rows and rounds: four minutes there. Ratios are those of medians.
On a busy machine compare the processor time (user and system, with all children).
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.record import ROOT, commit, head
from p2p.report.tables import show

TRAIN = ["epochs=1", "+trainer.limit_train_batches=2", "logger=csv"]
ON_GPU = torch.cuda.is_available()
BACKENDS = ("eager", "triton", "torch_tensorrt") if ON_GPU else ("exported_program",)
MISTAKES = {"--help": "--help", "a mistyped key": "batchsize=8", "an impossible value": "codec.quality=high"}


def run(arguments: list[str], *, folder: Path, check: bool = True) -> tuple[float, float]:
    """Seconds and processor seconds of a command."""
    before, begin = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True)
    seconds, after = time.perf_counter() - begin, os.times()
    if check and done.returncode:
        sys.exit(f"{' '.join(arguments)} in {folder}: {done.stderr or done.stdout}")
    return seconds, sum(after[2:4]) - sum(before[2:4])


def prepare(checkout: Path, work: Path, *, image_size: int) -> None:
    """A run, and an export by each backend."""
    run(["train.py", f"run_dir={work}", f"image_size={image_size}", *TRAIN], folder=checkout)
    for backend in BACKENDS:
        arguments = [f"run_dir={work}", f"backend={backend}", f"output={work}/{backend}", "min_psnr=10"]
        run(["export.py", *arguments], folder=checkout)


def rows_of(checkout: Path, work: Path, inputs: dict[int, Path]) -> dict[str, list[str]]:
    """The commands, by what they are called in the table."""
    rows = {name: ["infer.py", argument] for name, argument in MISTAKES.items()}
    for backend in BACKENDS:
        for count, folder in inputs.items():
            common = ["infer.py", f"run_dir={work}", f"export={work}/{backend}", f"input={folder}", "layout=inputs"]
            rows[f"{backend}, {count} images"] = [*common, "+pipeline=overlap", "batch_size=8"]
            if count == max(inputs) and not ON_GPU:
                rows[f"{backend}, {count} images, sequential"] = [*common, "+pipeline=sequential"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="a checkout of an earlier commit, whose rows take turns with these")
    parser.add_argument("--repeats", type=int, default=3 if ON_GPU else 5)
    parser.add_argument("--image-size", type=int, default=256 if ON_GPU else 128)
    parser.add_argument("--images", type=int, nargs="+", default=[50] if ON_GPU else [16, 50])
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/startup.json")
    parser.add_argument("--commit", default=commit(), help="where the code is no git checkout")
    options = parser.parse_args()
    checkouts = {"now": ROOT} | ({"before": options.before.absolute()} if options.before else {})
    samples = sorted((ROOT / "data/samples").glob("*/*.jpg"))
    with tempfile.TemporaryDirectory() as name:
        inputs = {count: Path(name, f"images-{count}") for count in options.images}
        for count, folder in inputs.items():
            folder.mkdir()
            for index in range(count):
                shutil.copy(samples[index % len(samples)], folder / f"{index:03d}.jpg")
        commands = {}
        for which, checkout in checkouts.items():
            prepare(checkout, Path(name, which), image_size=options.image_size)
            commands |= {(row, which): c for row, c in rows_of(checkout, Path(name, which), inputs).items()}
        measured = {key: [] for key in [("import torch", "now"), *commands]}
        for _ in range(options.repeats):
            measured["import torch", "now"].append(run(["-c", "import torch"], folder=ROOT))
            for (row, which), arguments in commands.items():
                measured[row, which].append(run(arguments, folder=checkouts[which], check=row not in MISTAKES))
    result = head(options.commit) | {"settings": {"image_size": options.image_size, "backends": BACKENDS}, "rows": []}
    medians = {key: [statistics.median(times) for times in zip(*runs, strict=True)] for key, runs in measured.items()}
    torch_s, torch_cpu_s = medians["import torch", "now"]
    for (row, which), (seconds, cpu_seconds) in medians.items():
        facts = {"seconds": seconds, "cpu_seconds": cpu_seconds}
        ratios = {"ratio": seconds / torch_s, "cpu_ratio": cpu_seconds / torch_cpu_s}
        result["rows"].append({"row": row, "checkout": which} | facts | ratios)
    cells = [
        [f"{each['row']}, {each['checkout']}", *(f"{each[key]:.2f}" for key in list(each)[2:])]
        for each in result["rows"]
    ]
    show("whole processes, medians", ["", "seconds", "processor s", "of import torch", "of its processor s"], cells)
    options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
