#!/usr/bin/env python3
"""Disk to disk: how many images a second do the pipelines translate, and what would each stage reach alone?

    python -m benchmarks.pipeline [--images 256] [--rows CODEC:FORMAT:BATCH,...] [--backend auto] [--folder DIR]
        [--repeats 3] [--fit STEPS] [--timeline DIR] [--commit ...] [--output FILE]

The shipped pairs, mirrored, turned and in other colours, as 512x256 JPEG of quality 95, of which the left half is
translated. The generator is taught for --fit steps, since what it draws decides what encoding costs. Files are really
written, to --folder, and checked: their number, that each can be decoded, and that the first ones are byte by byte
those of the sequential pipeline with the same settings. Batches of 1 translate a quarter of the images.
"""

import argparse
import importlib
import json
import os
import shutil
import statistics
import tempfile
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from benchmarks import alone, inputs
from benchmarks.record import ROOT, commit, head
from p2p.codecs.fast import Fast
from p2p.codecs.nvimgcodec import NvImgCodec
from p2p.codecs.pillow import Pillow, decode
from p2p.config.cli import quiet_libraries
from p2p.data.images import read_input
from p2p.data.pairs import Pair, find_inputs
from p2p.data.transforms.cvcuda import CvCuda
from p2p.data.transforms.torchvision import Torchvision
from p2p.deploy.engine import Engine, load_engine
from p2p.deploy.export import export
from p2p.models.init import initialize
from p2p.models.unet import UNet
from p2p.pipelines import overlap, sequential
from p2p.pipelines.slots import hwc
from p2p.pipelines.stages import Stages
from p2p.profiling.clock import WORK, Clock
from p2p.report import timeline
from p2p.report.limit import limit
from p2p.system import atomic

CODECS = {"pillow": (Pillow, Torchvision), "fast": (Fast, Torchvision), "nvimgcodec": (NvImgCodec, CvCuda)}
ROWS_GPU = ",".join(
    [f"fast:{format}:{batch}" for batch in (32, 8, 1, 128) for format in ("jpg", "png")]
    + ["nvimgcodec:jpg:32", "nvimgcodec:png:32"]
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
    codec_class, transform_class = CODECS[codec]
    transform = transform_class(image_size=engine.manifest.image_size)
    output.mkdir(parents=True, exist_ok=True)
    return Stages(engine=engine, transform=transform, codec=codec_class(format=format), output=output, clock=Clock())


def run_once(run, stages: Stages, pairs: list[Pair], batch: int) -> dict:
    """Images/s end to end and of each stage over the time that one worker worked at it, and what limited it."""
    shutil.rmtree(stages.files.output, ignore_errors=True)
    os.sync()  # a disk that still writes the last run's files, or forgets them, would be measured
    run(pairs, stages, batch_size=batch)
    clock = stages.clock
    assert not stages.failures, next(iter(stages.failures.items()))
    speeds = {stage: clock.images[stage] / clock.seconds[stage] for stage in ("e2e", *WORK) if clock.images[stage]}
    cores = clock.cpu_seconds / clock.seconds["e2e"]
    return {
        "e2e": speeds.pop("e2e"),
        "stages": speeds,
        "cores": cores,
        "limit": limit(clock, format=stages.files.codec.suffix[1:]),
    }


def check(stages: Stages, pairs: list[Pair]) -> dict:
    """Every file is there and can be decoded; how large they are."""
    paths = [stages.path(pair.name) for pair in pairs]
    assert len(list(stages.files.output.iterdir())) == len(paths)
    shape = hwc(stages.engine.manifest.output_shape)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda path: decode(path.read_bytes()).shape == shape, paths))
    return {"files": len(paths), "mean_kb": round(statistics.mean(p.stat().st_size for p in paths) / 1024, 1)}


def same_bytes(stages: Stages, other: Stages, pairs: list[Pair]) -> str:
    """How many of two pipelines' files are the same, and where the pixels of the others differ."""
    files = [[each.path(pair.name).read_bytes() for each in (stages, other)] for pair in pairs]
    differing = [index for index, (mine, theirs) in enumerate(files) if mine != theirs]
    text = f"{len(pairs) - len(differing)} of {len(pairs)}"
    for index in differing[:5]:
        apart = np.abs(np.subtract(*(decode(file).astype(np.int16) for file in files[index])))
        rows = np.flatnonzero(apart.any((1, 2)))
        where = f"rows {rows[0]} to {rows[-1]}" if len(rows) else "none"
        text += f"; {index}: {np.count_nonzero(apart)} values differ by {apart.max()} at most, {where}"
    return text


def measure(engine: Engine, codec: str, format: str, batch: int, pairs: list[Pair], folder: Path, repeats: int) -> dict:
    """A row: overlap, the sequential pipeline with the same settings, and each stage alone."""
    runs = []
    for _ in range(repeats):
        stages = stages_for(engine, codec, format, folder / "overlap")
        runs.append(run_once(overlap.run, stages, pairs, batch))
    few = pairs[: FEW // batch * batch or batch]
    plain = stages_for(engine, codec, format, folder / "sequential")
    one_by_one = run_once(sequential.run, plain, few, batch)
    row = {
        "images_per_s": round(statistics.median(run["e2e"] for run in runs), 1),
        "all_runs": [round(run["e2e"], 1) for run in runs],
        "cores": round(runs[-1]["cores"], 1),
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
    row["alone"] = {stage: round(speed, 1) for stage, speed in speeds.items()}
    # Alone, loading and saving have every core; together they share them. Where the GPU decodes, workers hardly load.
    share = 1 / (1 / speeds["loading"] + 1 / speeds["saving"])
    row["alone"]["loading and saving on the same cores"] = round(share, 1)
    row["of_slowest_alone"] = round(row["images_per_s"] / min(row["alone"].values()), 3)
    return row


def main() -> None:
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--images", type=int, default=4096 if on_gpu else 256)
    parser.add_argument("--rows", default=ROWS_GPU if on_gpu else ROWS_CPU, help="CODEC:FORMAT:BATCH,...")
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
        program, rows = engine.manifest.program, []
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
        for codec, format, batch in (row.split(":") for row in options.rows.split(",")):
            batch = int(batch)
            if batch > 32 and large is None:
                other = "eager" if on_gpu else "exported_program"
                large = make_engine(folder, network, pairs, image_size=options.image_size, backend=other)
            runs_on = large if batch > 32 else engine
            count = len(pairs) if batch > 1 else len(pairs) // 4
            facts = {"codec": codec, "format": format, "batch": batch, "backend": runs_on.manifest.program.backend}
            try:
                row = measure(runs_on, codec, format, batch, pairs[:count], folder, options.repeats)
                show(facts, row)
            except Exception as error:  # the others are worth having
                traceback.print_exc()
                row = {"failed": f"{type(error).__name__}: {error}"}
            rows.append(facts | row)
            atomic.write(options.output, json.dumps(record | {"rows": rows}, indent=1) + "\n")  # as far as it is
    print(f"written to {options.output}")


def show(facts: dict, row: dict) -> None:
    what = f"{facts['codec']:10} {facts['format']} batch {facts['batch']:3}: {row['images_per_s']:>8,.0f} images/s"
    print(f"{what} {row['all_runs']}, {row['of_slowest_alone']:.2f} of the slowest alone {row['alone']}")
    print(f"    sequential {row['sequential_images_per_s']:,.0f}, same bytes {row['same_bytes_as_sequential']}")
    print(f"    {row['mean_kb']} KB each; {row['limit'][1]}; {row['cores']} cores; {row['stages']}", flush=True)


if __name__ == "__main__":
    main()
