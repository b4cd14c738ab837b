#!/usr/bin/env python3
"""Disk to disk: how many images a second do the pipelines translate, and what would each stage reach alone?

    python -m benchmarks.pipeline [--images 256] [--rows CODEC:FORMAT:BATCH[:CORES],...] [--backend auto]
        [--folder DIR] [--repeats 3] [--fit STEPS] [--timeline DIR] [--commit ...] [--output FILE]

The shipped pairs, mirrored, turned and in other colours, as 512x256 JPEG of quality 95, of which the left half is
translated. The generator is taught for --fit steps, since what it draws decides what encoding costs. Files are really
written, to --folder, and checked: their number, that each can be decoded, and that the first ones are byte by byte
those of the sequential pipeline with the same settings. Batches of 1 translate a quarter of the images. With CORES,
the row's whole process tree has the first so many of the cores that there are. A table of all rows comes last.
"""

import argparse
import importlib
import json
import os
import shutil
import statistics
import tempfile
import traceback
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks import alone, inputs
from benchmarks.cores import limited_to
from benchmarks.outputs import check, same_bytes
from benchmarks.record import ROOT, commit, head
from benchmarks.rows import Row, rows, table
from p2p.codecs.fast import Fast
from p2p.codecs.nvjpeg import NvJpeg
from p2p.codecs.pillow import Pillow, decode
from p2p.config.cli import quiet_libraries
from p2p.data.images import read_input
from p2p.data.pairs import Pair, find_inputs
from p2p.data.transforms.torchvision import Torchvision
from p2p.deploy.engine import Engine, load_engine
from p2p.deploy.export import export
from p2p.models.init import initialize
from p2p.models.unet import UNet
from p2p.pipelines import overlap, sequential
from p2p.pipelines.stages import Stages
from p2p.profiling.clock import WORK, Clock
from p2p.report import timeline
from p2p.report.limit import limit
from p2p.system import atomic

CODECS = {"pillow": Pillow, "fast": Fast, "nvjpeg": NvJpeg}
ROWS_GPU = ",".join(
    [f"fast:{format}:{batch}" for batch in (32, 8, 1, 128) for format in ("jpg", "png")]
    + ["nvjpeg:jpg:32", "nvjpeg:png:32"]
)
ROWS_CPU = "fast:jpg:8,fast:png:8,fast:jpg:1,fast:png:1"
FEW = 192  # images of the sequential pipeline, and of the comparison with it


def make_network(image_size: int, *, fit: int = 0) -> UNet:
    torch.manual_seed(0)
    network = UNet(image_size=image_size)
    initialize(network)
    if fit:
        inputs.fit(network, steps=fit, device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return network.eval()


def make_engine(
    folder: Path,
    network: UNet,
    pairs: list[Pair],
    *,
    image_size: int,
    backend: str = "auto",
    max_batch: int | None = None,
) -> Engine:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    transform = Torchvision(image_size=image_size)
    images = torch.stack([transform.eval(read_input(pair, decode, channels=3)) for pair in pairs[:4]])
    checkpoint = folder / "initial"
    checkpoint.touch()

    def build(network, example_NCHW, folder):
        module = importlib.import_module("p2p.deploy.auto" if backend == "auto" else f"p2p.deploy.backends.{backend}")
        return module.export(network, example_NCHW, folder, max_batch=max_batch)

    facts = {"norm_stats": "running", "direction": "AtoB", "checkpoint": checkpoint, "device": device}
    export(network, images, folder / backend, backend=build, min_psnr=30.0, **facts)
    return load_engine(folder / backend, device=device)


def stages_for(engine: Engine, codec: str, format: str, output: Path) -> Stages:
    transform = Torchvision(image_size=engine.manifest.image_size)
    output.mkdir(parents=True, exist_ok=True)
    return Stages(engine=engine, transform=transform, codec=CODECS[codec](format=format), output=output, clock=Clock())


def run_once(run, stages: Stages, pairs: list[Pair], batch: int) -> dict:
    """Images/s end to end and of each stage over the time that one worker worked at it, and what limited it."""
    shutil.rmtree(stages.files.output, ignore_errors=True)
    os.sync()  # a disk that still writes the last run's files, or forgets them, would be measured
    run(pairs, stages, batch_size=batch)
    clock = stages.clock
    assert not stages.failures, next(iter(stages.failures.items()))
    speeds = {stage: clock.images[stage] / clock.seconds[stage] for stage in ("e2e", *WORK) if clock.images[stage]}
    return {
        "e2e": speeds.pop("e2e"),
        "stages": speeds,
        "cores_busy": clock.cpu_seconds / clock.seconds["e2e"],
        "limit": limit(clock, format=stages.files.codec.suffix[1:]),
    }


def measure(engine: Engine, row: Row, pairs: list[Pair], folder: Path, repeats: int) -> dict:
    """A row: overlap, the sequential pipeline with the same settings, and each stage alone."""
    codec, format, batch, _ = row
    runs = []
    for _ in range(repeats):
        stages = stages_for(engine, codec, format, folder / "overlap")
        runs.append(run_once(overlap.run, stages, pairs, batch))
    few = pairs[: FEW // batch * batch or batch]
    plain = stages_for(engine, codec, format, folder / "sequential")
    one_by_one = run_once(sequential.run, plain, few, batch)
    found = {
        "images_per_s": round(statistics.median(run["e2e"] for run in runs), 1),
        "all_runs": [round(run["e2e"], 1) for run in runs],
        "cores_busy": round(runs[-1]["cores_busy"], 1),
        "limit": runs[-1]["limit"],
        "stages": {stage: round(speed, 1) for stage, speed in runs[-1]["stages"].items()},
        "sequential_images_per_s": round(one_by_one["e2e"], 1),
        "same_bytes_as_sequential": same_bytes(stages, plain, few),
        **check(stages, pairs),
    }
    frames = [decode(stages.path(pair.name).read_bytes()) for pair in pairs[:256]]
    os.sync()
    speeds = {"loading": alone.loading(stages, pairs, batch), "generating": alone.generating(stages, batch)}
    if stages.files.gpu_decodes:
        speeds["decoding"] = alone.decoding(stages, pairs[: max(batch * 8, 1024)], batch)
    speeds["saving"] = alone.saving(stages_for(engine, codec, format, folder / "alone"), frames, pairs, batch)
    shutil.rmtree(folder / "alone")
    found["alone"] = {stage: round(speed, 1) for stage, speed in speeds.items()}
    # Alone, loading and saving have every core; together they share them. Where the GPU decodes, workers hardly load.
    share = 1 / (1 / speeds["loading"] + 1 / speeds["saving"])
    found["alone"]["loading and saving on the same cores"] = round(share, 1)
    found["of_slowest_alone"] = round(found["images_per_s"] / min(found["alone"].values()), 3)
    return found


def main() -> None:
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--images", type=int, default=4096 if on_gpu else 256)
    parser.add_argument(
        "--rows",
        type=partial(rows, codecs=[*CODECS]),
        default=ROWS_GPU if on_gpu else ROWS_CPU,
        help="CODEC:FORMAT:BATCH[:CORES],...",
    )
    parser.add_argument("--backend", default="auto", help="a backend, for batches of 32 at most")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="of inputs and outputs")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--image-size", type=int, default=256 if on_gpu else 128)
    parser.add_argument("--fit", type=int, default=400 if on_gpu else 0, help="steps of training")
    parser.add_argument("--timeline", type=Path, help="folder for the picture of a run at batch 32")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/pipeline.json")
    parser.add_argument("--commit", default=commit(), help="where the code is no git checkout")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        inputs.make(folder / "inputs", options.images)
        pairs = find_inputs(str(folder / "inputs"), layout="side_by_side")
        network = make_network(options.image_size, fit=options.fit)
        facts = {"image_size": options.image_size, "backend": options.backend, "max_batch": 32}
        engine, large = make_engine(folder, network, pairs, **facts), None
        program, measured = engine.manifest.program, []
        record = head(options.commit) | {
            "program": {"backend": program.backend, "dtype": program.dtype, "versions": program.versions},
            "images": options.images,
            "image_size": options.image_size,
            "fit_steps": options.fit,
            "folder": str(options.folder),
            "input_mean_kb": round(float(np.mean([p.input.path.stat().st_size for p in pairs])) / 1024, 1),
        }
        default = stages_for(engine, "pillow", "png", folder / "default")
        record["sequential_default"] = round(run_once(sequential.run, default, pairs[:FEW], 1)["e2e"], 1)
        print(f"sequential, batch 1, Pillow, png: {record['sequential_default']:,.0f} images/s", flush=True)
        if options.timeline:
            stages = stages_for(engine, "fast", "jpg", folder / "timeline")
            with timeline.profile(stages.clock, folder=options.timeline):
                overlap.run(pairs, stages, batch_size=32)
        for row in options.rows:
            if row.batch > 32 and large is None:
                other = "eager" if on_gpu else "exported_program"
                large = make_engine(folder, network, pairs, image_size=options.image_size, backend=other)
            runs_on = large if row.batch > 32 else engine
            count = len(pairs) if row.batch > 1 else len(pairs) // 4
            facts = row._asdict() | {"backend": runs_on.manifest.program.backend}
            try:
                with limited_to(row.cores):
                    found = measure(runs_on, row, pairs[:count], folder, options.repeats)
                show(row, found)
            except Exception as error:  # the others are worth having
                traceback.print_exc()
                found = {"failed": f"{type(error).__name__}: {error}"}
            measured.append(facts | found)
            text = json.dumps(record | {"rows": measured}, indent=1)
            atomic.write(options.output, text + "\n")  # as far as it is
    print(table(measured))
    print(f"written to {options.output}")


def show(row: Row, found: dict) -> None:
    what = f"{row.codec:10} {row.format} batch {row.batch:3}, {row.cores:3} cores"
    print(f"{what}: {found['images_per_s']:>8,.0f} images/s {found['all_runs']}, {found['cores_busy']} cores busy")
    print(f"    {found['of_slowest_alone']:.2f} of the slowest alone {found['alone']}")
    print(f"    sequential {found['sequential_images_per_s']:,.0f}, same bytes {found['same_bytes_as_sequential']}")
    print(f"    {found['mean_kb']} KB each; {found['limit'][1]}; {found['stages']}", flush=True)


if __name__ == "__main__":
    main()
