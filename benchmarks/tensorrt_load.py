#!/usr/bin/env python3
"""How long does a TensorRT engine take to load, without and with the kernels that TensorRT-RTX keeps? On a GPU.

    python -m benchmarks.tensorrt_load [--image-size 256] [--batches 8 32] [--output FILE]

Every row is a process of its own: the first finds no kernels, the second those that the first has kept.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.generator import trained_like
from benchmarks.record import ROOT, commit, head
from p2p.deploy.backends import torch_tensorrt
from p2p.deploy.engine import load_program
from p2p.deploy.manifest import Program
from p2p.deploy.rewrite import fold_batch_norm
from p2p.report.tables import show


def seconds(work) -> float:
    """How long it takes, the GPU's part included."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(folder: Path, batches: list[int]) -> dict[str, float]:
    """Load what is in the folder, call it with each batch size, and say how long all of it took."""
    device, program = torch.device("cuda"), Program(**json.loads((folder / "program.json").read_text()))
    library = "tensorrt_rtx" if torch_tensorrt.RTX in program.versions else "tensorrt"
    row = {"import": seconds(lambda: __import__(library)), "torch_tensorrt imported": 0.0}
    loaded = []
    row["load"] = seconds(lambda: loaded.append(load_program(torch_tensorrt, program, folder, device=device)))
    [run] = loaded
    for batch in batches:
        images = torch.zeros(batch, 3, *([int((folder / "side").read_text())] * 2), dtype=torch.float16, device=device)
        row[f"first call, batch {batch}"] = seconds(lambda images=images: run(images))
        row[f"ms, batch {batch}"] = min(seconds(lambda images=images: run(images)) for _ in range(50)) * 1000
    kernels = folder / "generator.kernels"
    row["MB of kernels"] = kernels.stat().st_size / 1e6 if kernels.exists() else 0.0
    row["torch_tensorrt imported"] = float("torch_tensorrt" in sys.modules)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/tensorrt-load.json")
    parser.add_argument("--commit", default=commit(), help="where the code is no git checkout")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # in a process of its own
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.batches)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder, side = Path(name), options.image_size
        images = torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
        network = fold_batch_norm(trained_like(images, "running"))
        program = torch_tensorrt.export(network, images, folder, max_batch=max(options.batches))
        (folder / "program.json").write_text(json.dumps(asdict(program)))
        (folder / "side").write_text(str(side))
        command = ["-m", "benchmarks.tensorrt_load", "--measure", name, "--batches", *map(str, options.batches)]
        rows = {}
        for which in ("no kernels", "kept kernels", "kept kernels, again"):
            done = subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True, text=True)
            rows[which] = json.loads(done.stdout.splitlines()[-1])
    cells = [[what, *(f"{row[what]:.3f}" for row in rows.values())] for what in rows["no kernels"]]
    show("a process each; seconds, where nothing else is said", ["", *rows], cells)
    result = head(options.commit) | {"versions": program.versions, "image_size": side, "rows": rows}
    options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
