#!/usr/bin/env python3
"""Does memory grow with the number of images? Measures the memory of all processes and of the GPU during the run.

    python -m benchmarks.memory [--images 50000] [--batch 32] [--codec fast] [--output FILE]

The inputs are variations of the shipped pairs. Every output is written.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import torch

from benchmarks import inputs
from benchmarks.engines import make_engine, make_network
from benchmarks.ours import CODECS, stages_for
from benchmarks.record import ROOT, commit, head
from p2p.config.cli import quiet_libraries
from p2p.data.pairs import Pair, find_inputs
from p2p.pipelines import overlap
from p2p.system import atomic

SHARES = (0.1, 0.5, 0.9, 1.0)


def resident_mb() -> dict[str, float]:
    """Of this process, of all its workers, of the slots that they share, and of the GPU."""
    own, shared = [], 0
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for pid in ("self", *children):
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        own.append(int(fields["RssAnon"].split()[0]))
        shared = max(shared, int(fields["RssShmem"].split()[0]))
    gpu = torch.cuda.mem_get_info() if torch.cuda.is_available() else (0, 0)
    return {
        "main": own[0] / 1024,
        "workers": sum(own[1:]) / 1024,
        "shared": shared / 1024,
        "gpu": (gpu[1] - gpu[0]) / 2**20,
    }


def main() -> None:
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--codec", choices=CODECS, default="nvjpeg" if on_gpu else "fast")
    parser.add_argument("--image-size", type=int, default=256 if on_gpu else 32)
    parser.add_argument(
        "--backend", default="eager" if on_gpu else "exported_program", help="auto, or a module of deploy/backends"
    )
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="of inputs and outputs")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/memory.json")
    parser.add_argument("--commit", default=commit(), help="where the code is no git checkout")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        inputs.make(folder / "inputs", 512)
        found = find_inputs(str(folder / "inputs"), layout="side_by_side")
        size, network = options.image_size, make_network(options.image_size)
        engine = make_engine(folder, network, found, image_size=size, backend=options.backend)
        stages = stages_for(engine, options.codec, "jpg", folder / "output")
        pairs = [Pair(f"{i:06d}", found[i % len(found)].input) for i in range(options.images)]
        rows, done, marks = [], 0, [int(share * options.images) for share in SHARES]

        def count() -> None:
            nonlocal done
            done += 1
            if done in marks:
                rows.append({"images": done} | {kind: round(mb, 1) for kind, mb in resident_mb().items()})
                print(rows[-1], flush=True)

        stages.on_image = count
        overlap.run(pairs, stages, batch_size=options.batch)
        speed = options.images / stages.clock.seconds["e2e"]
        assert len(list((folder / "output").iterdir())) == options.images and not stages.failures
    print(f"{speed:,.0f} images/s; from {SHARES[0]:.0%} on: {_growth(rows)}")
    facts = {"codec": options.codec, "batch": options.batch, "images_per_s": round(speed, 1), "mb": rows}
    atomic.write(options.output, json.dumps(head(options.commit) | facts, indent=1) + "\n")


def _growth(rows: list[dict[str, float]]) -> str:
    return ", ".join(
        f"{kind} {rows[-1][kind] - rows[0][kind]:+.1f} MB" for kind in ("main", "workers", "shared", "gpu")
    )


if __name__ == "__main__":
    main()
