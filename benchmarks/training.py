#!/usr/bin/env python3
"""How fast does `train.py` train, what does each measure bring, and how near is it to the bare step?

    python -m benchmarks.training [--batch 1,16,64] [--compile 1] [--quick]
    python -m benchmarks.training --cores 16,4 --batch 16,64     # pairs that are not kept: who decodes them?

1,280 generated pairs, 512x256 JPEGs, unet_256 and the 70x70 PatchGAN at 256x256. In one run, on one machine:

- `plain`: a loop as one would write it first: fp32 (convolutions in TF32, torch's default), NCHW, Adam as torch
  makes it, `cudnn.benchmark`, loader processes that decode, resize, crop and flip.
- `train.py`, in a process of its own for each row: images/s of the epochs after the first, loading included,
  validation and checkpoints left out; "start" is from starting the process to the end of the first step.
- `bare`: the captured step alone, over one batch that stays in place. It is what `train.py` can reach at most.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.plain_step import plain_step
from benchmarks.record import ROOT, commit, head
from p2p.batch import Batch
from p2p.config.cli import quiet_libraries
from p2p.data.datamodule import PairedImages
from p2p.data.transforms.torchvision import Torchvision
from p2p.system import atomic
from p2p.system.device import pick_device
from p2p.training.capture import CapturedStep

PAIRS = 1280  # 20 batches of 64
BASE = ["trainer.precision=32-true", "optimizer.fused=false", "model.capture=false", "data.cache=none"]
LADDER = [  # of batch 1: each row takes one more override back
    ("train.py, eager fp32", BASE),
    ("+ bf16", BASE[1:]),
    ("+ fused Adam", BASE[2:]),
    ("+ captured", BASE[3:]),
    ("train.py as it is: + pairs on the GPU", []),
]
TARGETS = {1: 250, 16: 1500, 64: 2200}


def generate(root: Path, size: int) -> None:
    """Pairs of `size` made from the shipped ones, turned and shifted: JPEGs of quality 90."""
    sources = [Image.open(path).convert("RGB") for path in sorted((ROOT / "data/samples/train").glob("*.jpg"))]
    sources = [np.asarray(image.resize((2 * size, size), Image.Resampling.BICUBIC)) for image in sources]

    def write(index: int) -> None:
        pair = np.split(sources[index % len(sources)], 2, axis=1)
        turns, shift = index // len(sources), 7 * index % size
        pair = [np.roll(np.rot90(half, turns), shift, axis=1) for half in pair]
        Image.fromarray(np.hstack(pair)).save(root / split / f"{index:05}.jpg", quality=90)

    for split, count in (("train", PAIRS), ("val", 4)):
        (root / split).mkdir(parents=True)
        with ThreadPoolExecutor() as pool:
            list(pool.map(write, range(count)))


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def plain(root: Path, batch: int, size: int, device: torch.device, seconds: float) -> dict:
    """The loop as one would write it first."""
    transform = Torchvision(image_size=size)
    loader = PairedImages(root=str(root), transform=transform, batch_size=batch, cache="none").train_dataloader()
    step, _, _ = plain_step(size, device, fast=False)
    images, began = 0, None
    for _ in range(100):
        for index, pairs in enumerate(loader):
            step(pairs.to(device))
            if began is None and index >= 4:
                wait(device)
                began = time.perf_counter()
            elif began is not None:
                images += len(pairs)
                if index % 4 == 0:
                    wait(device)
                    if time.perf_counter() - began > seconds:
                        return row("plain", batch, images / (time.perf_counter() - began))
    raise AssertionError("the loop should have ended")


def bare(batch: int, size: int, device: torch.device, seconds: float) -> dict:
    """The captured step alone; on a CPU, eager."""
    started = time.perf_counter()
    step, _, optimizers = plain_step(size, device, fast=device.type == "cuda")
    images = [torch.rand(batch, 3, size, size, device=device) * 2 - 1 for _ in range(2)]
    pairs = Batch(["x"] * batch, *images).channels_last()
    run = CapturedStep(step, optimizers=optimizers, device=device) if device.type == "cuda" else step
    for _ in range(6 if device.type == "cuda" else 1):
        run(pairs)
    wait(device)
    start = time.perf_counter() - started
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(10 if device.type == "cuda" else 1):
            run(pairs)
            done += batch
        wait(device)
    rate = done / (time.perf_counter() - began)
    return row("bare step", batch, rate, start=start)


def train(root: Path, name: str, batch: int, size: int, overrides: list[str], *, quick: bool) -> dict:
    """`train.py` in a process of its own."""
    steps = {1: 500, 16: 80}.get(batch, PAIRS // batch) if not quick else 2
    steps = min(steps, 150) if "model.capture=false" in overrides else steps  # ten times as slow
    epochs = 2 if batch == 1 or quick else 6
    with tempfile.TemporaryDirectory() as folder:
        pace = Path(folder, "pace.json")
        command = [
            sys.executable,
            str(ROOT / "train.py"),
            "data=folder",
            f"data.root={root}",
            f"hydra.run.dir={folder}",
        ]
        command += [f"image_size={size}", f"batch_size={batch}", f"epochs={epochs}", f"name={Path(folder).name}"]
        command += [f"+trainer.limit_train_batches={steps}", f"trainer.check_val_every_n_epoch={epochs + 1}"]
        command += ["+callbacks.pace._target_=benchmarks.pace.Pace", f"+callbacks.pace.file={pace}", *overrides]
        started = time.time()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            reason = lines[-1] if lines else f"exit status {done.returncode}"
            print(f"  {name:36} batch {batch:<3} {reason}", flush=True)
            return {"name": name, "batch": batch, "reason": reason}
        whole = time.time() - started
        record = json.loads(pace.read_text())
    after = record["epochs"][1:]
    rate = sum(epoch["images"] for epoch in after) / sum(epoch["seconds"] for epoch in after)
    result = row(name, batch, rate, start=record["first_step"] - started)
    return result | {"overrides": overrides, "epochs": record["epochs"], "process_s": round(whole, 1)}


def not_kept(root: Path, cores: int, batches: list[int], size: int, *, quick: bool, limit_s: float) -> list[dict]:
    """`train.py` with pairs that are not kept, decoded by the GPU and by the CPU: a sweep, in one process of few cores.

    The sweep is ended after `limit_s` seconds; what it did not come to has no row.
    """
    decoders = ["gpu" if torch.cuda.is_available() else "auto", "cpu"]
    with tempfile.TemporaryDirectory() as folder:
        command = ["taskset", "-c", f"0-{cores - 1}", sys.executable, str(ROOT / "train.py"), "-m", "data=folder"]
        command += [f"data.root={root}", "data.cache=none", f"data.decode={','.join(decoders)}"]
        command += [f"batch_size={','.join(map(str, batches))}", f"hydra.sweep.dir={folder}", f"image_size={size}"]
        command += ["epochs=4", "trainer.check_val_every_n_epoch=5", "+callbacks.pace._target_=benchmarks.pace.Pace"]
        command += [f"+callbacks.pace.file={folder}/pace-${{data.decode}}-${{batch_size}}.json"]
        command += ["+trainer.limit_train_batches=2"] if quick else []
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit_s)
            if done.returncode:
                print(f"  {done.stderr.strip().splitlines()[-1]}")
        except subprocess.TimeoutExpired:
            print(f"  the sweep with {cores} cores was ended after {limit_s:.0f} s")
        rows = []
        for decode, batch in product(decoders, batches):
            if (pace := Path(folder, f"pace-{decode}-{batch}.json")).is_file():
                epochs = json.loads(pace.read_text())["epochs"]
                rate = sum(each["images"] for each in epochs[1:]) / sum(each["seconds"] for each in epochs[1:])
                rows.append(row(f"data.decode={decode}, {cores} cores", batch, rate) | {"epochs": epochs})
    return rows


def row(name: str, batch: int, rate: float, *, start: float | None = None) -> dict:
    result = {"name": name, "batch": batch, "images_per_s": round(rate, 1), "ms_per_step": round(1e3 * batch / rate, 3)}
    result |= {} if start is None else {"start_s": round(start, 1)}
    print(
        f"  {name:36} batch {batch:<3} {rate:9,.1f} images/s" + (f"  start {start:.0f} s" if start else ""), flush=True
    )
    return result


def show(rows: list[dict]) -> None:
    """As Markdown, with what the targets say."""
    rates = {(each["name"], each["batch"]): each.get("images_per_s") for each in rows}
    print("\n| | batch | images/s | ms a step | of plain | of bare | start |\n|---|---|---|---|---|---|---|")
    for each in rows:
        if "reason" in each:
            print(f"| {each['name']} | {each['batch']} | {each['reason']} | | | | |")
            continue
        of = [
            f"{each['images_per_s'] / base:.2f}" if (base := rates.get((name, each["batch"]))) else ""
            for name in ("plain", "bare step")
        ]
        start = f"{each['start_s']:.0f} s" if "start_s" in each else ""
        figures = f"{each['images_per_s']:,.0f} | {each['ms_per_step']:.2f} | {of[0]} | {of[1]} | {start}"
        print(f"| {each['name']} | {each['batch']} | {figures} |")
    print()
    for batch, target in TARGETS.items():
        if rate := rates.get((LADDER[-1][0], batch)):
            print(f"batch {batch}: {rate:,.0f} images/s, {target:,} wanted: {'met' if rate >= target else 'missed'}")


def main() -> None:
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", default="1,16,64", help="batch sizes, in this order")
    parser.add_argument("--compile", default="1", help="batch sizes to run with torch.compile, too; '' for none")
    parser.add_argument("--cores", default="", help="pairs that are not kept, and nothing else, with so many cores")
    parser.add_argument("--limit", type=float, default=600, help="seconds for each number of cores")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs")
    parser.add_argument("--output", type=Path, help="JSON to write; by default benchmarks/results/training-<gpu>.json")
    parser.add_argument("--commit", default=commit(), help="where the code is no git checkout")
    args = parser.parse_args()
    device, size, seconds = pick_device("auto"), args.image_size, 0.1 if args.quick else 4.0
    torch.backends.cudnn.benchmark = True
    record = head(args.commit, "lightning", "cvcuda-cu13") | {"image_size": size, "pairs": PAIRS}
    batches, compiled = ([int(text) for text in each.split(",") if text] for each in (args.batch, args.compile))
    gpu = "-".join(record["machine"]["gpu"].split()[1:2]).lower() if record["machine"]["gpu"] else "cpu"
    path, rows = args.output or ROOT / f"benchmarks/results/training-{gpu}.json", []

    def add(row: dict) -> None:
        rows.append(row)
        atomic.write(path, json.dumps(record | {"rows": rows}, indent=1) + "\n")  # as far as it is

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "pairs")
        generate(root, size)
        for cores in [int(text) for text in args.cores.split(",") if text]:
            for each in not_kept(root, cores, batches, size, quick=args.quick, limit_s=args.limit):
                add(each)
        for batch in batches if not args.cores else ():
            ladder = list(LADDER if batch == 1 else LADDER[-1:])
            if batch in compiled:
                ladder.append(("train.py, model.compile=true", ["model.compile=true"]))
            add(plain(root, batch, size, device, seconds))
            for name, overrides in ladder:
                add(train(root, name, batch, size, overrides, quick=args.quick))
            add(bare(batch, size, device, seconds))
    show(rows)
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    main()
