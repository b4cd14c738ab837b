#!/usr/bin/env python3
"""Disk to disk: how many images a second do the pipelines translate, and what would each stage reach alone?

    python -m benchmarks.pipeline [--images 256] [--rows CODEC:FORMAT:BATCH[:CORES],...] [--backend auto]
        [--folder DIR] [--repeats 3] [--fit STEPS] [--timeline DIR] [--commit ...] [--output FILE]

The shipped pairs, mirrored, turned and in other colours, as 512x256 JPEG of quality 95, of which the left half is
translated. The generator is taught for --fit steps, since what it draws decides what encoding costs. Files are really
written, to --folder, and checked: their number, that each can be decoded, and that the first ones are byte by byte
those of the sequential pipeline with the same settings.

With CORES, the row's whole process tree has the first so many of the cores that there are. Fewer cores than there are
translate half of the images, batches of 1 a quarter. As CODEC, peer and dali are what others would write with the same
network: see benchmarks/peer.py and dali.py. A table of all rows comes last.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
import traceback
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from benchmarks import alone, dali, inputs, peer, peers
from benchmarks.cores import limited_to
from benchmarks.engines import make_engine, make_network
from benchmarks.outputs import check, same_bytes
from benchmarks.record import ROOT, commit, head
from benchmarks.rows import Row, rows, table
from p2p.codecs.fast import Fast
from p2p.codecs.nvjpeg import NvJpeg
from p2p.codecs.pillow import Pillow, decode
from p2p.config.cli import quiet_libraries
from p2p.data.pairs import Pair, find_inputs
from p2p.data.transforms.torchvision import Torchvision
from p2p.deploy.engine import Engine
from p2p.pipelines import overlap, sequential
from p2p.pipelines.slots import hwc
from p2p.pipelines.stages import Stages
from p2p.profiling.clock import WORK, Clock
from p2p.report import timeline
from p2p.report.limit import limit
from p2p.system import atomic
from p2p.system.cores import available_cores

CODECS = {"pillow": Pillow, "fast": Fast, "nvjpeg": NvJpeg}
TARGETS = ("jpg:32", "jpg:32:8", "jpg:32:4", "png:32", "jpg:8", "jpg:1")
COMPARED = ("jpg:32", "jpg:32:4", "png:32", "png:32:4", "jpg:8", "jpg:8:4")
ROWS_GPU = [f"{codec}:{row}" for row in TARGETS for codec in ("nvjpeg", "fast")]
ROWS_GPU += [f"peer:{row}" for row in COMPARED] + [f"dali:{row}" for row in COMPARED[:2] if dali.installed()]
ROWS_CPU = ["fast:jpg:8", "fast:png:8", "fast:jpg:1", "fast:png:1"]
FEW = 192  # images of the sequential pipeline, and of the comparison with it


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


def references(engine: Engine, format: str, pairs: list[Pair], folder: Path) -> list[Path]:
    """Our own files of these pairs, for a peer's pictures to be compared with."""
    stages = stages_for(engine, "fast", format, folder / "references")
    run_once(sequential.run, stages, pairs, 8)
    return [stages.path(pair.name) for pair in pairs]


def measure(row: Row, engine: Engine, pairs: list[Pair], folder: Path, *, repeats: int) -> dict:
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
        **check([stages.path(pair.name) for pair in pairs], hwc(engine.manifest.output_shape)),
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
        type=partial(rows, codecs=[*CODECS, *peers.PEERS]),
        default=",".join(ROWS_GPU if on_gpu else ROWS_CPU),
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
    if options.image_size != inputs.SIZE and any(row.codec in peers.PEERS for row in options.rows):
        parser.error(f"the peers resize nothing: use --image-size {inputs.SIZE}")

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
        generate = cache(partial(peer.make_generate, network))
        for row in options.rows:
            begin = time.perf_counter()
            if row.batch > 32 and large is None:
                other = "eager" if on_gpu else "exported_program"
                large = make_engine(folder, network, pairs, image_size=options.image_size, backend=other)
            runs_on = large if row.batch > 32 else engine
            parts = 4 if row.batch == 1 else 2 if row.cores < available_cores() else 1
            some, facts = pairs[: len(pairs) // parts], row._asdict() | {"images": len(pairs) // parts}
            try:
                if row.codec in peers.PEERS:
                    files = references(engine, row.format, some[:FEW], folder)
                    measure_row = partial(peers.measure, row, generate(), some, folder, references=files)
                else:
                    facts["backend"] = runs_on.manifest.program.backend
                    measure_row = partial(measure, row, runs_on, some, folder)
                with limited_to(row.cores):
                    found = measure_row(repeats=options.repeats)
                found["seconds"] = round(time.perf_counter() - begin, 1)
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
    print(f"{row.codec} {row.format} batch {row.batch}, {row.cores} cores: {found['images_per_s']:,.0f} images/s")
    for name, value in found.items():
        print(f"    {name}: {value}", flush=True)


if __name__ == "__main__":
    main()
