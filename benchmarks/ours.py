"""The rows of `benchmarks.pipeline` that measure p2p: the whole from disk to disk, and each stage alone."""

from __future__ import annotations

import os
import shutil
import statistics
from functools import partial
from pathlib import Path

from benchmarks import alone
from benchmarks.outputs import check, same_bytes
from benchmarks.rows import Row
from p2p.codecs.fast import Fast
from p2p.codecs.nvjpeg import NvJpeg
from p2p.codecs.pillow import Pillow, decode
from p2p.data.pairs import Pair
from p2p.data.transforms.torchvision import Torchvision
from p2p.deploy.engine import Engine
from p2p.pipelines import overlap, sequential
from p2p.pipelines.slots import hwc
from p2p.pipelines.stages import Stages
from p2p.profiling.clock import WORK, Clock
from p2p.report.limit import limit

CODECS = {"pillow": Pillow, "fast": Fast, "nvjpeg": NvJpeg, "nvjpeg420": partial(NvJpeg, subsampling=420)}
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
