#!/usr/bin/env python3
"""How much faster does each step from `sequential` to `overlap` make infer.py, on the same images?

    python -m benchmarks.ladder [--images 128] [--batch 8] [--repeats 3] [--image-size 128] [--rungs NAME,...]

A rung is infer.py's command line, with or without the saving of images. A rung that needs a GPU, or an option that is
not there, is left out and says so. All rungs take turns, so that a slow moment of the machine hits them alike; the
files that a rung writes are compared with the first rung's. Same network, programs and images as benchmarks.pipeline.
"""

import argparse
import itertools
import json
import shutil
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from benchmarks.engines import make_engine, make_network
from benchmarks.record import ROOT, commit, head
from benchmarks.unsaved import Unsaved
from p2p.codecs.pillow import decode
from p2p.commands.infer_settings import transform_for
from p2p.config.cli import CONF, explain, quiet_libraries
from p2p.data.pairs import Pair, find_pairs
from p2p.deploy.engine import Engine
from p2p.pipelines.stages import Stages
from p2p.profiling.clock import Clock
from p2p.report.limit import limit
from p2p.report.tables import show
from p2p.system import atomic
from p2p.system.cores import available_cores


def loading_in_threads(pairs: list[Pair], stages: Stages, *, batch_size: int) -> None:
    """The sequential pipeline, but a batch's images are loaded at the same time; the engine waits for them.

    Images that cannot be read are beyond it.
    """
    stages.warmup(batch_size, images=len(pairs))
    with ThreadPoolExecutor(min(8, available_cores())) as pool, stages.clock("e2e", len(pairs)):
        for start in range(0, len(pairs), batch_size):
            some = pairs[start : start + batch_size]
            loaded = list(pool.map(stages.load, some))
            for image, frame_HWC in zip(loaded, stages.outputs(loaded, batch_size=batch_size), strict=True):
                stages.save(image.pair, frame_HWC, image.size)


@dataclass
class Rung:
    """A step of the ladder and its measurements, or why there are none.

    Attributes:
        name: for the table.
        overrides: of infer.py; "BATCH" stands for --batch.
        saves: whether images are encoded and written.
        gpu: whether it needs one.
        pipeline: in place of the one that the overrides choose.
        reason: why it is left out.
        images_per_s: of each repeat.
        stages: images/s of each stage while it worked, of each repeat.
        limit: the stage that limited the last repeat.
        difference: of its files from the first rung's, 0 to 255; None where it writes none.
    """

    name: str
    overrides: list[str]
    saves: bool = True
    gpu: bool = False
    pipeline: Callable[..., None] | None = None
    reason: str | None = None
    images_per_s: list[float] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)
    limit: str | None = None
    difference: int | None = None


def ladder() -> list[Rung]:
    """The rungs, from the ground up."""
    one, many = (["pipeline=sequential", f"batch_size={size}"] for size in (1, "BATCH"))
    overlap, on_gpu = ["pipeline=overlap", "batch_size=BATCH"], ["codec=nvjpeg"]
    return [
        Rung("sequential", one),
        Rung("without saving", one, saves=False),
        Rung("larger batches", many, saves=False),
        Rung("loading in threads", many, saves=False, pipeline=loading_in_threads),
        Rung("loading overlapped", overlap, saves=False),
        Rung("saving overlapped", overlap),
        Rung("everything, CV-CUDA too", [*overlap, *on_gpu], gpu=True),
    ]


def run_once(rung: Rung, engine: Engine, pairs: list[Pair], output: Path, *, batch: int, format: str) -> None:
    """Translate all pairs as the rung says, and add to its measurements; a rung that cannot run gets its reason."""
    overrides = [override.replace("BATCH", str(batch)) for override in rung.overrides]
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    clock = Clock()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("infer", [*overrides, f"codec.format={format}"])
        transform = transform_for(engine.manifest, cfg.transform)
        stages = Stages(engine=engine, transform=transform, codec=instantiate(cfg.codec), output=output, clock=clock)
        pipeline = rung.pipeline or instantiate(cfg.pipeline)
    except Exception as error:  # an option that is not there, or cannot be made here
        rung.reason = explain(error, "infer") or f"{type(error).__name__}: {error}"
        return
    if not rung.saves:
        stages.files = Unsaved(**vars(stages.files))
    pipeline(pairs, stages, batch_size=cfg.batch_size)
    rung.images_per_s.append(len(pairs) / clock.seconds["e2e"])
    assert not stages.failures, stages.failures
    written = len(list(output.iterdir())) if output.is_dir() else 0
    assert written == (len(pairs) if rung.saves else 0), f"{rung.name} wrote {written} files"
    working = [stage for stage in clock.seconds if stage not in ("warmup", "e2e")]
    rung.stages.append({stage: clock.images[stage] / clock.seconds[stage] for stage in working})
    rung.limit = limit(clock)[0]


def difference(folder: Path, other: Path) -> int:
    """The largest difference of two folders' images, 0 to 255; 0 for the same bytes."""
    largest = 0
    for path in folder.iterdir():
        one, two = path.read_bytes(), (other / path.name).read_bytes()
        if one != two:
            largest = max(largest, int(np.abs(decode(one).astype(int) - decode(two)).max()))
    return largest


def row(rung: Rung) -> dict:
    """As it stands in the JSON: medians."""
    facts = {"rung": rung.name, "command": " ".join(["infer.py", *rung.overrides]), "saves": rung.saves}
    if rung.reason is not None:
        return facts | {"left_out": rung.reason}
    stages = {stage: statistics.median(each[stage] for each in rung.stages) for stage in rung.stages[0]}
    return facts | {
        "images_per_s": round(statistics.median(rung.images_per_s), 1),
        "limit": rung.limit,
        "difference": rung.difference,
        "stages": {stage: round(speed, 1) for stage, speed in stages.items()},
    }


def show_ladder(rows: list[dict], title: str) -> None:
    """The rungs that ran, each against the first of them; then why the others did not."""
    ran = [row for row in rows if "images_per_s" in row]
    files = {None: "none", 0: "the same"}
    cells = [
        [
            row["rung"],
            f"{row['images_per_s']:,.1f}",
            f"{row['images_per_s'] / ran[0]['images_per_s']:.2f}",
            row["limit"],
            files.get(row["difference"], f"within {row['difference']}"),
        ]
        for row in ran
    ]
    show(title, ["", "images/s", "times", "limit", "files"], cells)
    for row in rows:
        if "left_out" in row:
            print(f"{row['rung']} left out: {row['left_out']}")


def main() -> None:
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8, help="of the larger batches")
    parser.add_argument("--format", default="png", choices=["png", "jpg", "webp"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--backend", default="auto", help="auto, or a module of deploy/backends")
    parser.add_argument("--fit", type=int, default=0, help="steps of training, see benchmarks.pipeline")
    parser.add_argument("--rungs", default="", help="only these and the first, such as 'saving overlapped,everything'")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/ladder.json")
    parser.add_argument("--commit", default=commit(), help="where the code is no git checkout")
    options = parser.parse_args()

    found = itertools.cycle(find_pairs(ROOT / "data/samples/train") + find_pairs(ROOT / "data/samples/val"))
    pairs = [Pair(f"{i:06d}", pair.input) for i, pair in zip(range(options.images), found, strict=False)]
    first, *others = ladder()
    rungs = [first, *(rung for rung in others if not options.rungs or rung.name in options.rungs.split(","))]
    for rung in rungs:
        if rung.gpu and not torch.cuda.is_available():
            rung.reason = "it needs a GPU"
    with tempfile.TemporaryDirectory() as folder:
        size, network = options.image_size, make_network(options.image_size, fit=options.fit)
        engine = make_engine(Path(folder), network, pairs, image_size=size, backend=options.backend)
        engine.check_batch_size(options.batch)
        for _ in range(options.repeats):
            for rung in rungs:
                if rung.reason is None:
                    output = Path(folder, rung.name)
                    run_once(rung, engine, pairs, output, batch=options.batch, format=options.format)
        for rung in rungs:
            if rung.saves and rung.reason is None:
                rung.difference = difference(Path(folder, first.name), Path(folder, rung.name))
    program, rows = engine.manifest.program, [row(rung) for rung in rungs]
    show_ladder(rows, f"{options.images} images to {options.format}, batches of {options.batch}, {program.backend}")
    record = head(options.commit) | {
        "program": {"backend": program.backend, "dtype": program.dtype, "versions": program.versions},
        "images": options.images,
        "batch": options.batch,
        "format": options.format,
        "image_size": options.image_size,
        "repeats": options.repeats,
        "rows": rows,
    }
    atomic.write(options.output, json.dumps(record, indent=1) + "\n")
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
