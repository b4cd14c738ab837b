#!/usr/bin/env python3
"""Disk to disk: how many images a second do the pipelines translate, and what would each stage reach alone?

    python -m benchmarks.pipeline [--images 128] [--repeats 3] [--image-size 128] [--commit ...] [--output FILE]

The shipped pairs, linked as often as needed; a U-Net with its initial weights, since speed does not depend on them;
exported by backend=auto, so through Torch-TensorRT where it can run. Files are really written.
"""

import argparse
import itertools
import json
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarks.record import ROOT, commit, head
from p2p.cli import quiet_libraries
from p2p.codecs.pillow import Pillow
from p2p.data.images import read_input
from p2p.data.pairs import Pair, find_pairs
from p2p.data.transforms.torchvision import Torchvision
from p2p.deploy import auto
from p2p.deploy.engine import Engine, load_engine
from p2p.deploy.export import export
from p2p.models.init import initialize
from p2p.models.unet import UNet
from p2p.pipelines import overlap, sequential
from p2p.pipelines.stages import Stages
from p2p.profiling.clock import Clock

PIPELINES = {"sequential": sequential.run, "overlap": overlap.run}
STAGES = ("decode", "preprocess", "generate", "postprocess", "encode", "write")


def make_engine(folder: Path, image_size: int, pairs: list[Pair]) -> Engine:
    network = UNet(image_size=image_size)
    initialize(network)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    transform, codec = Torchvision(image_size=image_size), Pillow()
    images = torch.stack([transform.eval(read_input(pair, codec.decode, channels=3)) for pair in pairs[:4]])
    checkpoint = folder / "initial"
    checkpoint.touch()
    facts = {"norm_stats": "running", "direction": "AtoB", "checkpoint": checkpoint, "device": device}
    export(network, images, folder / "export", backend=auto.export, **facts)
    return load_engine(folder / "export", device=device)


def run_once(name: str, engine: Engine, pairs: list[Pair], *, batch_size: int, format: str) -> dict[str, float]:
    """Images/s end to end, and of each stage over the time that it worked."""
    with tempfile.TemporaryDirectory() as output:
        stages = Stages(
            engine=engine,
            transform=Torchvision(image_size=engine.image_size),
            codec=Pillow(format=format),
            output=Path(output),
            clock=Clock(),
        )
        PIPELINES[name](pairs, stages, batch_size=batch_size)
        assert len(list(Path(output).iterdir())) == len(pairs)
    clock = stages.clock
    return {stage: clock.images[stage] / clock.seconds[stage] for stage in ("e2e", *STAGES)}


def main() -> None:
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/pipeline.json")
    parser.add_argument("--commit", default=commit(), help="where the code is no git checkout")
    options = parser.parse_args()

    found = itertools.cycle(find_pairs(ROOT / "data/samples/train") + find_pairs(ROOT / "data/samples/val"))
    pairs = [Pair(f"{i:06d}", pair.input) for i, pair in zip(range(options.images), found, strict=False)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        engine = make_engine(Path(folder), options.image_size, pairs)
        print(f"{'pipeline':12}{'batch':>6}{'format':>8}" + "".join(f"{name:>12}" for name in ("e2e", *STAGES)))
        for batch_size, format in itertools.product((1, 8), ("jpg", "png")):
            repeats = {name: [] for name in PIPELINES}
            for _ in range(options.repeats):  # in turns, so that a slow moment of the machine hits both
                for name in PIPELINES:
                    repeats[name].append(run_once(name, engine, pairs, batch_size=batch_size, format=format))
            for name, results in repeats.items():
                median = {key: round(statistics.median(r[key] for r in results), 1) for key in results[0]}
                rows.append({"pipeline": name, "batch_size": batch_size, "format": format, "images_per_s": median})
                print(f"{name:12}{batch_size:>6}{format:>8}" + "".join(f"{value:>12}" for value in median.values()))
    program = engine.manifest.program
    record = {
        **head(options.commit),
        "program": {"backend": program.backend, "dtype": program.dtype, "versions": program.versions},
        "images": options.images,
        "image_size": options.image_size,
        "repeats": options.repeats,
        "rows": rows,
    }
    options.output.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
