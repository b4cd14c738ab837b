#!/usr/bin/env python3
"""Does a training take as long as its steps? The whole command `train.py`, seconds by phase.

    python -m benchmarks.whole_training [--before DIR] [override ...]

Without overrides it is the demo; `experiment=paper data=facades epochs=20` is the paper's recipe. DIR holds another
commit, which is measured first, with the same Python: `git archive COMMIT | tar x -C DIR`.

- start-up: from the shell to the start of training, with imports and the validation before it.
- first epoch: with all of it that happens once, such as the recording of the CUDA graph.
- steps, validation (with pictures and logs), checkpoints (what the training waits for them): of all other epochs.
- end: the rest of the last checkpoint, the validation after training, the end of the process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.record import ROOT, commit, head
from p2p.system import atomic

PHASES = ("start-up", "first epoch", "steps", "validation", "checkpoints", "end")
EPOCHS = 200  # that the ratio is told for, from the phases of fewer: the paper's


def measure(tree: Path, overrides: list[str]) -> dict:
    """Run the training of the code in `tree`.

    Returns:
        "whole_s", "phases_s", "epochs", "epoch_s" after the first one, "of_steps": how many times its steps a training
        of 200 such epochs takes, and "disk_mb" of its checkpoints.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, run_dir = Path(folder, "phases.json"), Path(folder, "run")
        # Namespace packages of both are one: benchmarks.phases is today's, p2p that beside train.py.
        options = [f"hydra.run.dir={run_dir}", f"+callbacks.phases.file={file}"]
        command = [
            sys.executable,
            str(tree / "train.py"),
            *options,
            "+callbacks.phases._target_=benchmarks.phases.Phases",
        ]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        started = time.time()
        subprocess.run([*command, *overrides], cwd=tree, env=os.environ | {"PYTHONPATH": path}, check=True)
        ended = time.time()
        files = {(stat.st_ino, stat.st_size) for path in run_dir.rglob("*.ckpt") for stat in [path.stat()]}
        record = json.loads(file.read_text())
    return phases(record, started=started, ended=ended) | {"disk_mb": round(sum(size for _, size in files) / 1e6, 1)}


def phases(record: dict, *, started: float, ended: float) -> dict:
    """What `measure` returns, from the record of `benchmarks.phases`, of two epochs or more."""
    epochs = record["epochs"][1:]
    ends = [*(epoch["start"] for epoch in epochs[1:]), record["train_end"]]
    steps = sum(epoch["steps_end"] - epoch["start"] for epoch in epochs)
    saving = sum(epoch["saving_s"] for epoch in epochs)
    seconds = {
        "start-up": record["train_start"] - started,
        "first epoch": epochs[0]["start"] - record["train_start"],
        "steps": steps,
        "validation": sum(end - epoch["steps_end"] for epoch, end in zip(epochs, ends, strict=True)) - saving,
        "checkpoints": saving,
        "end": ended - record["train_end"],
    }
    epoch_s = (record["train_end"] - epochs[0]["start"]) / len(epochs)
    once = sum(seconds[name] for name in ("start-up", "first epoch", "end"))
    whole = once + (EPOCHS - 1) * epoch_s
    return {
        "whole_s": round(ended - started, 2),
        "phases_s": {name: round(value, 2) for name, value in seconds.items()},
        "epochs": 1 + len(epochs),
        "epoch_s": round(epoch_s, 3),
        "images_per_s": round(sum(epoch["images"] for epoch in epochs) / steps, 1),
        "of_steps": round(whole / (EPOCHS * steps / len(epochs)), 2),
    }


def show(rows: list[dict]) -> None:
    """As Markdown."""
    print(f"\n| | whole | {' | '.join(PHASES)} | an epoch | {EPOCHS} epochs, of their steps | on disk |")
    print("|---|" + "---|" * (len(PHASES) + 4))
    for row in rows:
        cells = " | ".join(f"{row['phases_s'][name]:.1f}" for name in PHASES)
        print(
            f"| {row['name']} | {row['whole_s']:.1f} s | {cells} | {row['epoch_s']:.2f} s | {row['of_steps']:.2f}"
            f" | {row['disk_mb']:,.0f} MB |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="of train.py")
    parser.add_argument("--before", type=Path, help="a folder with another commit, to be measured first")
    parser.add_argument("--only-before", action="store_true", help="measure that alone")
    parser.add_argument("--output", type=Path, help="JSON to write")
    parser.add_argument("--commit", default=commit(), help="where the code is no git checkout")
    args = parser.parse_args()
    rows = []
    for name, tree in (("before", args.before), ("after", None if args.only_before else ROOT)):
        if tree is not None:
            rows.append({"name": name} | measure(tree.resolve(), args.overrides))
            if args.output is not None:  # as far as it is
                record = head(args.commit, "lightning") | {"overrides": args.overrides, "rows": rows}
                atomic.write(args.output, json.dumps(record, indent=1) + "\n")
    show(rows)


if __name__ == "__main__":
    main()
