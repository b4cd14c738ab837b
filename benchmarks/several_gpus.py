#!/usr/bin/env python3
"""What do 2, 4 or 8 GPUs of one machine bring, with 16 cores each? Whole commands, on real files.

    python -m benchmarks.several_gpus [--devices 1,2] [--parts infer,train] [--others] [--output FILE]

- `infer`: `infer.py +pipeline=overlap batch_size=32 codec.format=jpg` on the inputs of benchmarks/pipeline.py, which
  come again under other names. images/s from the first batch to the last file; `whole_s` is the process, with imports.
  All files of more GPUs are compared with those of the first run, byte by byte.
- `train`: `train.py` at batch 16 for each GPU: images/s of all GPUs in the epochs after the first, which are of as many
  steps on any number of GPUs. The pairs are those of benchmarks/training.py, which come again under other names. With
  --others on two GPUs also without capture, and by Lightning's own DistributedDataParallel.

`of_one` is the speed over that of the first number of devices.
"""

import argparse
import filecmp
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torch

from benchmarks import inputs, training
from benchmarks.engines import make_engine, make_network
from benchmarks.record import ROOT, commit, head
from p2p.data.pairs import find_inputs
from p2p.system import atomic
from p2p.system.cores import available_cores, divide_cores, near_gpu
from p2p.system.gpus import gpu_addresses

UNIQUE = 3840  # inputs; more are the same once more
CAPTURED = {"train.py": ["model.capture=true"]}
OTHERS = {
    "train.py, model.capture=false": ["model.capture=false"],
    "DistributedDataParallel": ["trainer.strategy=ddp_find_unused_parameters_true"],
}
TARGETS = {"infer": {2: 1.9}, "train": {2: 1.85}}  # times one; of more devices 0.9 for each
INFER = "import json, sys, p2p; print('score', json.dumps(p2p.infer(sys.argv[1:]).score))"


def cores_of(devices: int, cores_each: int) -> str:
    """For taskset: so many cores for each device, near them where the system says which these are."""
    addresses = gpu_addresses()[:devices]
    near = [near_gpu(address) for address in addresses] or [set()] * devices
    shares = [sorted(share)[:cores_each] for share in divide_cores(near + [set()] * (most(devices) - devices))]
    return ",".join(str(core) for share in shares[:devices] for core in share)


def most(devices: int) -> int:
    """Parts that the machine's cores are for: a GPU alone gets no more of them than beside others."""
    return max(devices, len(gpu_addresses()), 1)


def timed(command: list[str], *, cores: str, limit_s: float) -> tuple[str, float]:
    """What a command prints, and how many seconds it took."""
    begin = time.perf_counter()
    limited = ["timeout", "--kill-after=2", str(limit_s), "taskset", "-c", cores]  # ends all processes of a training
    done = subprocess.run([*limited, *command], cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    if done.returncode:
        what = f"was ended after {limit_s:.0f} s" if done.returncode == 124 else f"exit status {done.returncode}"
        raise RuntimeError(done.stderr.strip()[-2000:] or what)
    return done.stdout, seconds


def make_inputs(folder: Path, count: int) -> None:
    """So many files, of which UNIQUE differ."""
    inputs.make(folder, min(count, UNIQUE))
    for number in range(UNIQUE, count):
        os.link(folder / f"{number % UNIQUE:06d}.jpg", folder / f"{number:06d}.jpg")


def infer(folder: Path, args: argparse.Namespace, add) -> None:
    """A row for each number of devices."""
    make_inputs(folder / "inputs", args.images)
    pairs = find_inputs(str(folder / "inputs"), layout="side_by_side")
    network = make_network(args.image_size, fit=args.fit)
    make_engine(folder, network, pairs, image_size=args.image_size, backend=args.backend, max_batch=32)
    torch.cuda.empty_cache() if torch.cuda.is_available() else None
    first = None
    for devices in args.devices:
        output = folder / f"output-{devices}"
        settings = [f"export={folder / args.backend}", f"input={folder / 'inputs'}", "layout=side_by_side"]
        settings += [f"output={output}", f"run_dir={folder}", "gallery=0", "+pipeline=overlap", "batch_size=32"]
        settings += ["codec.format=jpg", f"devices={devices}", f"device={args.device}"]
        out, seconds = timed(
            [sys.executable, "-c", INFER, *settings], cores=cores_of(devices, args.cores), limit_s=args.limit
        )
        print(out)
        score = float(out.rpartition("score ")[2])
        names = sorted(path.name for path in output.glob("*.jpg"))
        found = {"part": "infer", "name": "infer.py", "devices": devices, "images_per_s": round(score, 1)}
        found |= {"whole_s": round(seconds, 1), "images": len(names)}
        if first is not None:
            found["bytes_differ"] = len(filecmp.cmpfiles(first, output, names, shallow=False)[1])
            shutil.rmtree(output)
        first = first or output
        add(found)


def train(folder: Path, args: argparse.Namespace, add) -> None:
    """A row for each number of devices, and for several one for each way to exchange gradients."""
    training.generate(folder / "pairs", args.image_size)
    pairs = sorted((folder / "pairs/train").iterdir())
    for number in range(len(pairs), max(args.devices) * args.steps * args.batch):
        os.link(pairs[number % len(pairs)], folder / f"pairs/train/{number:06}.jpg")
    for devices in args.devices:
        ways = {"train.py": []} if devices == 1 else CAPTURED | (OTHERS if devices == 2 and args.others else {})
        for name, overrides in ways.items():
            run_dir = folder / "run"
            pace = folder / "pace.json"
            command = [sys.executable, "train.py", "data=folder", f"data.root={folder / 'pairs'}"]
            command += [f"hydra.run.dir={run_dir}", f"image_size={args.image_size}", f"batch_size={args.batch}"]
            command += [f"epochs={args.epochs}", f"trainer.check_val_every_n_epoch={args.epochs + 1}"]
            command += ["+callbacks.pace._target_=benchmarks.pace.Pace", f"+callbacks.pace.file={pace}"]
            command += ["trainer=ddp", f"trainer.devices={devices}"] if devices > 1 else []
            command += [f"+trainer.limit_train_batches={args.steps}"]
            command += ["trainer.accelerator=cpu"] if args.device == "cpu" else []
            try:
                out, seconds = timed([*command, *overrides], cores=cores_of(devices, args.cores), limit_s=args.limit)
            except RuntimeError as error:  # the others are worth having
                add({"part": "train", "name": name, "devices": devices, "failed": str(error)})
                continue
            print(out)
            epochs = json.loads(pace.read_text())["epochs"][1:]
            rate = devices * sum(epoch["images"] for epoch in epochs) / sum(epoch["seconds"] for epoch in epochs)
            found = {"part": "train", "name": name, "devices": devices, "images_per_s": round(rate, 1)}
            add(found | {"whole_s": round(seconds, 1), "batch": args.batch, "epochs": epochs})
            shutil.rmtree(run_dir)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    on_gpu = torch.cuda.is_available()
    numbers = lambda text: [int(each) for each in text.split(",")]  # noqa: E731
    parser.add_argument("--devices", type=numbers, default=[1, 2], help="how many, in this order")
    parser.add_argument("--parts", default="infer,train")
    parser.add_argument("--device", default="auto", help="cpu: processes in the place of GPUs, to see that it runs")
    parser.add_argument("--cores", type=int, default=16 if on_gpu else max(1, available_cores() // 2), help="for each")
    parser.add_argument("--images", type=int, default=61440 if on_gpu else 64)
    parser.add_argument("--image-size", type=int, default=256 if on_gpu else 32)
    parser.add_argument("--fit", type=int, default=200 if on_gpu else 0, help="steps of the generator's training")
    parser.add_argument("--backend", default="triton" if on_gpu else "exported_program")
    parser.add_argument("--batch", type=int, default=16 if on_gpu else 1)
    parser.add_argument("--epochs", type=int, default=10 if on_gpu else 2)
    parser.add_argument("--steps", type=int, default=80 if on_gpu else 4, help="of an epoch")
    parser.add_argument("--others", action="store_true", help="other ways to train on two")
    parser.add_argument("--limit", type=float, default=120, help="seconds for a command")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="of inputs and outputs")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/several-gpus.json")
    parser.add_argument("--commit", default=commit(), help="where the code is no git checkout")
    args = parser.parse_args()
    record, rows = head(args.commit, "lightning"), []
    record |= {"cores_each": args.cores, "image_size": args.image_size, "backend": args.backend}

    def add(row: dict) -> None:
        ones = [each for each in rows if each["part"] == row["part"] and "images_per_s" in each]
        if ones and "images_per_s" in row:
            row["of_one"] = round(row["images_per_s"] / ones[0]["images_per_s"], 3)
        rows.append(row)
        atomic.write(args.output, json.dumps(record | {"rows": rows}, indent=1) + "\n")  # as far as it is
        print({key: value for key, value in row.items() if key != "epochs"}, flush=True)

    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        for part in args.parts.split(","):
            try:
                {"infer": infer, "train": train}[part](Path(name), args, add)
            except Exception:  # noqa: PERF203 - the other part is worth having
                traceback.print_exc()
    show(rows)


def show(rows: list[dict]) -> None:
    """As Markdown."""
    print("| | GPUs | images/s | of one | wanted | whole command |\n|---|---|---|---|---|---|")
    for row in rows:
        if "failed" in row:
            print(f"| {row['name']} | {row['devices']} | {row['failed'].splitlines()[-1]} | | | |")
            continue
        count = row["devices"]
        wanted = TARGETS[row["part"]].get(count, round(0.9 * count, 1)) if count > 1 else ""
        figures = f"{row['images_per_s']:,.0f} | {row.get('of_one', '')} | {wanted} | {row['whole_s']:.0f} s"
        print(f"| {row['name']} | {row['devices']} | {figures} |")


if __name__ == "__main__":
    main()
