#!/usr/bin/env python3
"""How fast do the networks of pix2pixHD train, in how much memory, and what are feature matching and scales worth?

    python -m benchmarks.high_resolution [--sizes 512x512,1024x512] [--batch 1,4] [--quick]
    python -m benchmarks.high_resolution --facades FOLDER --minutes 2    # and four trainings of that length, at 512

In one process, over one batch of random images that stays on the device, with `experiment=hd_global` and without its
perceptual loss, which fetches weights:

- `plain`: a loop as one would write it first: fp32 (convolutions in TF32, torch's default), NCHW, `cudnn.benchmark`.
- `p2p`: `Pix2Pix` by Lightning with the settings of train.py: bf16, channels_last, one CUDA graph.
- `checkpointing`: the same with generator.checkpointing=true; `l1`: with losses=l1, which shows what feature matching
  costs.
- `local_enhancer`: `experiment=hd` with all of it trained, at twice the last size.

"GB" is what tensors took at most (`max_memory_allocated`); the JSON has what was reserved, too.
"""

import argparse
import gc
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import lightning
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch.utils.data import DataLoader

from benchmarks.plain_hd import plain_step
from benchmarks.record import ROOT, commit, head
from p2p.batch import Batch
from p2p.config.cli import CONF, quiet_libraries
from p2p.system import atomic
from p2p.system.device import pick_device

HD_GLOBAL, HD = ["experiment=hd_global"], ["experiment=hd", "callbacks=default"]
MATCHING = "losses=[feature_matching]"
WARM_UP = 6  # steps: three as they are, the recording, and two replays
RECIPES = {  # of the trainings
    "one scale, L1": ["discriminator=patch_70", "discriminator.norm=instance", "losses=l1"],
    "two scales, L1": ["losses=l1"],
    "one scale, feature matching": ["discriminator=patch_70", "discriminator.norm=instance", MATCHING],
    "two scales, feature matching": [MATCHING],
}


class Pace(lightning.Callback):
    """Images/s of the steps after the first ones; ends the training after so many seconds of them."""

    def __init__(self, seconds: float):
        self._seconds, self._began, self._images, self.rate = seconds, 0.0, 0, 0.0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        """Wait for the device now and then, since steps are queued faster than they run."""
        if batch_idx + 1 == WARM_UP:
            wait(pl_module.device)
            self._began = time.perf_counter()
        elif batch_idx + 1 > WARM_UP:
            self._images += len(batch)
            if (batch_idx + 1 - WARM_UP) % 4 == 0:
                wait(pl_module.device)
                elapsed = time.perf_counter() - self._began
                self.rate = self._images / elapsed
                trainer.should_stop = elapsed > self._seconds


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def composed(overrides: list[str]):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", ["run_dir=unused", *overrides])


def random_pair(size: tuple[int, int], batch: int, device: torch.device) -> Batch:
    width, height = size
    images = [torch.rand(batch, 3, height, width, device=device) * 2 - 1 for _ in range(2)]
    return Batch(["x"] * batch, *images)


def plain(cfg, pair: Batch, device: torch.device, seconds: float) -> float:
    """Images/s of the plain loop."""
    networks = [instantiate(cfg[part], _convert_="all") for part in ("generator", "discriminator")]
    step = plain_step(*networks, device)
    for _ in range(WARM_UP):
        step(pair)
    wait(device)
    began, images = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(4):
            step(pair)
            images += len(pair)
        wait(device)
    return images / (time.perf_counter() - began)


def ours(cfg, pair: Batch, device: torch.device, seconds: float) -> float:
    """Images/s of p2p's own step."""
    pace = Pace(seconds)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "callbacks": [pace]}
    trainer = instantiate(cfg.trainer, **quiet, _convert_="all")
    with torch.device(device):  # 183 million random numbers take a CPU seconds
        model = instantiate(cfg.model, _convert_="all")
    trainer.fit(model, DataLoader([pair] * 10_000, batch_size=None))
    return pace.rate


def measured(name: str, overrides: list[str], size: tuple[int, int], batch: int, *, seconds: float, run=ours) -> dict:
    """One row; what does not fit into memory has no rate."""
    device, cfg = pick_device("auto"), composed([f"image_size={size[1]}", f"batch_size={batch}", *overrides])
    row = {"name": name, "size": "x".join(map(str, size)), "batch": batch, "overrides": overrides}
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        row["images_per_s"] = round(run(cfg, random_pair(size, batch, device), device, seconds), 2)
    except torch.OutOfMemoryError:
        row["reason"] = "out of memory"
    if device.type == "cuda":
        row["gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
        row["gb_reserved"] = round(torch.cuda.max_memory_reserved() / 1e9, 2)
    print(as_row(row), flush=True)
    return row


def as_row(row: dict) -> str:
    rate = row.get("reason") or f"{row['images_per_s']:,.1f}"
    return f"| {row['size']} | {row['batch']} | {row['name']} | {rate} | {row.get('gb', '')} |"


def trained(name: str, root: Path, epochs: int, folder: Path, overrides: list[str]) -> dict:
    """`train.py` on pairs enlarged to 512 pixels, in a process of its own: its scores and its last picture."""
    run_dir = folder / re.sub(r"\W+", "-", name)
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        *HD_GLOBAL,
        "data=folder",
        f"data.root={root}",
        f"run_dir={run_dir}",
    ]
    command += ["data.direction=BtoA", f"epochs={epochs}", f"callbacks.samples.every_n_epochs={epochs}", "logger=csv"]
    command += ["callbacks.samples.count=6", "~callbacks.best", *overrides]
    began = time.time()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    (run_dir.with_suffix(".log")).write_text(done.stdout + done.stderr)
    row = {"name": name, "overrides": overrides, "epochs": epochs, "seconds": round(time.time() - began)}
    if done.returncode:
        return row | {"reason": lines[-1] if lines else f"exit status {done.returncode}"}
    (picture,) = (run_dir / "samples").glob("*.png")
    shutil.copy(picture, run_dir.with_suffix(".png"))
    shutil.rmtree(run_dir)  # gigabytes of checkpoints
    print(f"\n{name}, {epochs} epochs, {row['seconds']} s", *lines[-8:-1], sep="\n", flush=True)
    return row | {"after_training": next(line for line in lines if "after training" in line)}


def main() -> None:
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="512x512,1024x512", help="width x height")
    parser.add_argument("--batch", default="1,4")
    parser.add_argument("--rows", default="", help="those alone whose name is this")
    parser.add_argument("--seconds", type=float, default=4.0, help="of measuring each row")
    parser.add_argument("--facades", type=Path, help="a folder of A|B pairs to train on, at 512 pixels")
    parser.add_argument("--minutes", type=float, default=2.0, help="of each of these trainings, by the measured speed")
    parser.add_argument("--quick", action="store_true", help="small networks and a few steps, to see that it runs")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/high-resolution.json")
    parser.add_argument("--commit", default=commit(), help="where the code is no git checkout")
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    args.output.parent.mkdir(parents=True, exist_ok=True)
    sizes = [tuple(map(int, text.split("x"))) for text in args.sizes.split(",")]
    batches = [int(text) for text in args.batch.split(",")]
    seconds, small = args.seconds, []
    if args.quick:
        seconds, small = 0.1, ["generator.width=2", "generator.blocks=1", "discriminator.width=2"]
    record, rows, trainings = head(args.commit, "lightning"), [], []

    def save() -> None:
        atomic.write(args.output, json.dumps(record | {"rows": rows, "trainings": trainings}, indent=1) + "\n")

    def add(name, *row, **options) -> None:
        if args.rows in ("", name):
            rows.append(measured(name, *row, seconds=seconds, **options))
            save()  # as far as it is

    print("| size | batch | | images/s | GB |\n|---|---|---|---|---|")
    for size in sizes:
        for batch in batches:
            matched = [*HD_GLOBAL, MATCHING, *small]
            add("plain", matched, size, batch, run=plain)
            add("p2p", matched, size, batch)
            add("p2p, checkpointing", [*matched, "generator.checkpointing=true"], size, batch)
            if batch == batches[0]:
                add("p2p, l1", [*HD_GLOBAL, "losses=l1", *small], size, batch)
    largest = tuple(2 * side for side in sizes[-1])
    for name, more in {"local_enhancer": [], "local_enhancer, checkpointing": ["generator.checkpointing=true"]}.items():
        add(name, [*HD, MATCHING, *more, *small], largest, 1)
    if args.facades:
        rate = next((each["images_per_s"] for each in rows if each["name"] == "p2p" and "images_per_s" in each), 1.0)
        pairs = sum(1 for _ in (args.facades / "train").iterdir())
        epochs = 1 if args.quick else max(1, round(60 * args.minutes * rate / pairs))
        few = [*small, "image_size=64", "+trainer.limit_train_batches=2", "+trainer.limit_val_batches=1"]
        for name, overrides in RECIPES.items():
            more = few if args.quick else []
            trainings.append(trained(name, args.facades, epochs, args.output.parent, [*overrides, *more]))
            save()
    print(f"\nwritten to {args.output}")


if __name__ == "__main__":
    main()
