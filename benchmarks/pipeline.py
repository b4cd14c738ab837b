#!/usr/bin/env python3
"""Disk to disk: how many images a second do the pipelines translate, and what would each stage reach alone?

    python -m benchmarks.pipeline [--images 256] [--rows CODEC:FORMAT:BATCH[:CORES],...] [--backend auto]
        [--folder DIR] [--repeats 3] [--fit STEPS] [--timeline DIR] [--commit ...] [--output FILE]

The shipped pairs, mirrored, turned and in other colours, as 512x256 JPEG of quality 95, of which the left half is
translated. The generator is taught for --fit steps, since what it draws decides what encoding costs. Files are really
written, to --folder, and checked: their number, that each can be decoded, and that the first ones are byte by byte
those of the sequential pipeline with the same settings.

With CORES, the row's whole process tree has the first so many of the cores that there are. As CODEC, peer and dali are
what others would write with the same network: see benchmarks/peer.py and dali.py. So that all rows together take
minutes, fewer cores than there are translate half of the images, batches of 1 a quarter, and the peers half as many as
ours. A table of all rows comes last.
"""

import argparse
import json
import tempfile
import time
import traceback
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from benchmarks import dali, inputs, ours, peer, peers
from benchmarks.cores import limited_to
from benchmarks.engines import make_engine, make_network
from benchmarks.record import ROOT, commit, head
from benchmarks.rows import Row, rows, table
from p2p.config.cli import quiet_libraries
from p2p.data.pairs import find_inputs
from p2p.pipelines import overlap, sequential
from p2p.report import timeline
from p2p.system import atomic
from p2p.system.cores import available_cores

TARGETS = ("jpg:32", "jpg:32:8", "jpg:32:4", "png:32", "jpg:8", "jpg:1")
COMPARED = ("jpg:32", "jpg:32:4", "png:32", "png:32:4", "jpg:8", "jpg:8:4")
ROWS_GPU = [f"{codec}:{row}" for row in TARGETS for codec in ("nvjpeg", "fast")]
ROWS_GPU += [f"nvjpeg420:jpg:32:{cores}" for cores in (8, 4)]
ROWS_GPU += [f"peer:{row}" for row in COMPARED] + [f"dali:{row}" for row in COMPARED[:2] if dali.installed()]
ROWS_CPU = ["fast:jpg:8", "fast:png:8", "fast:jpg:1", "fast:png:1"]


def main() -> None:
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--images", type=int, default=4096 if on_gpu else 256)
    parser.add_argument(
        "--rows",
        type=partial(rows, codecs=[*ours.CODECS, *peers.PEERS]),
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
        default = ours.stages_for(engine, "pillow", "png", folder / "default")
        record["sequential_default"] = round(ours.run_once(sequential.run, default, pairs[: ours.FEW], 1)["e2e"], 1)
        print(f"sequential, batch 1, Pillow, png: {record['sequential_default']:,.0f} images/s", flush=True)
        if options.timeline:
            stages = ours.stages_for(engine, "nvjpeg" if on_gpu else "fast", "jpg", folder / "timeline")
            with timeline.profile(stages.clock, folder=options.timeline):
                overlap.run(pairs, stages, batch_size=32)
        generate, searched = cache(partial(peer.make_generate, network)), {}
        for row in options.rows:
            begin = time.perf_counter()
            if row.batch > 32 and large is None:
                other = "eager" if on_gpu else "exported_program"
                large = make_engine(folder, network, pairs, image_size=options.image_size, backend=other)
            runs_on = large if row.batch > 32 else engine
            parts = 4 if row.batch == 1 else 2 if row.cores < available_cores() else 1
            parts *= 2 if row.codec in peers.PEERS else 1
            some, facts = pairs[: len(pairs) // parts], row._asdict() | {"images": len(pairs) // parts}
            try:
                if row.codec in peers.PEERS:
                    files = ours.references(engine, row.format, some[: ours.FEW], folder)
                    known = {"references": files, "searched": searched}
                    measure_row = partial(peers.measure, row, generate(), some, folder, **known)
                else:
                    facts["backend"] = runs_on.manifest.program.backend
                    measure_row = partial(ours.measure, row, runs_on, some, folder)
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
