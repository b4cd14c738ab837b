"""How the cost of translating grows: a model of three numbers, fitted to what was measured, its table and its picture.

    python -m benchmarks.scaling docs/scaling.png
    python -m benchmarks.scaling --files /tmp/files        # what listing that many files takes on this disk

Images/s of a machine are the least of what its parts can do, for each GPU: `cores * per_core`, `host`, `engine`.
Each number is read from results/*.json; `simulated` asks the same of a small simulation of one run, batch by batch.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import resource
import time
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from benchmarks.record import commit, head
from p2p.data.pairs import find_inputs

RESULTS = Path(__file__).parent / "results"
BATCH = 32
KB_IN, KB_OUT = 20, 26  # of an image, as in benchmarks.pipeline
# Assumed, in dollars; put your own in their place: an hour of one GPU with 16 cores; a request that reads, and one that
# writes or lists, at an object store. And the keys of one listing, and the images of a shard.
GPU_HOUR, GET, PUT, LISTED, SHARD = 4.0, 0.0004 / 1000, 0.005 / 1000, 1000, 10_000


class Parts(NamedTuple):
    """What each part of a machine can do, in images/s of 256x256 pixels, JPEG to JPEG.

    Attributes:
        per_core: one core that decodes or encodes, as long as the cores are the limit.
        host: the process that feeds a GPU, whatever the number of cores.
        engine: the network on a GPU, alone.
    """

    per_core: float
    host: float
    engine: float

    def speed(self, cores: int, gpus: int = 1) -> tuple[float, str]:
        """Images/s of `gpus` GPUs that share `cores` cores, and the part that is the limit."""
        each = {"cores": cores / gpus * self.per_core, "host": self.host, "engine": self.engine}
        limit = min(each, key=each.__getitem__)
        return gpus * each[limit], limit


def measured(codec: str) -> dict[int, float]:
    """Cores -> images/s of one H200 at batch 32."""
    rows = json.loads((RESULTS / "pipeline-h200.json").read_text())["rows"]
    more = json.loads((RESULTS / "pipeline-h200-32-cores.json").read_text())["rows"]
    chosen = [row for row in [*rows, *more] if (row["codec"], row["format"], row["batch"]) == (codec, "jpg", BATCH)]
    return {row["cores"]: row["images_per_s"] for row in sorted(chosen, key=lambda row: row["cores"])}


def fitted(codec: str) -> Parts:
    """The parts, by the rows in which each of them is the limit: 4 and 8 cores, and from 16 cores on."""
    rows = json.loads((RESULTS / "pipeline-h200.json").read_text())["rows"]
    engine = mean(row["alone"]["generating"] for row in rows if row["codec"] == codec and row["batch"] == BATCH)
    found = measured(codec)
    if codec == "fast":  # its cores are busy for 99 per cent also with 16 of them: no other limit was met
        return Parts(mean(speed / cores for cores, speed in found.items()), engine, engine)
    per_core = mean(speed / cores for cores, speed in found.items() if cores <= 8)
    host = mean(speed for cores, speed in measured("nvjpeg").items() if cores >= 16)  # which encodes nothing
    return Parts(per_core, host, engine)


def simulated(parts: Parts, *, cores: int, images: int, batch: int = BATCH) -> float:
    """Images/s of a run in which batches wait for a free core, the host and the engine in turn, each as fast as fitted.

    It knows what the formula does not: filling and draining of the pipeline.
    """
    free = [0.0] * cores
    host = engine = end = 0.0
    for _ in range(images // batch):
        shares = []
        for _ in range(batch // 4):  # tasks of 4 images
            start = heapq.heappop(free)
            heapq.heappush(free, start + 4 / parts.per_core)
            shares.append(start + 4 / parts.per_core)
        host = max(host, max(shares)) + batch / parts.host
        engine = max(engine, host) + batch / parts.engine
        end = engine
    return images // batch * batch / end


def table() -> list[str]:
    """Measured and modelled speeds, as Markdown."""
    lines = ["| codec | cores | GPUs | measured | model | error | limit |", "|---|---|---|---|---|---|---|"]
    for codec in ("nvjpeg", "nvjpeg420", "fast"):
        parts, found = fitted(codec), measured(codec)
        for cores in sorted({*found, 2, 4, 8, 16, 32}):
            speed, limit = parts.speed(cores)
            error = f"{speed / found[cores] - 1:+.0%}" if cores in found else ""
            known = f"{found[cores]:,.0f}" if cores in found else "not run"
            lines.append(f"| `{codec}` | {cores} | 1 | {known} | {speed:,.0f} | {error} | {limit} |")
    pairs = json.loads((RESULTS / "several-gpus-h200.json").read_text())["rows"]
    one, two = (row["images_per_s"] for row in pairs if row["part"] == "infer")
    for gpus in (2, 4, 8):
        known = f"{two:,.0f}" if gpus == 2 else "not run"
        error = f"{gpus * one / two - 1:+.0%}" if gpus == 2 else ""
        lines.append(
            f"| auto, from 1 GPU on that day | {16 * gpus} | {gpus} | {known} | {gpus * one:,.0f} | {error} | host |"
        )
    return lines


def prices(speed: float) -> list[str]:
    """What a million and a billion images cost at that many images/s of one GPU, and what a store asks for requests."""
    lines = ["| images | hours of one GPU | GPU | bytes in and out | requests of single files | of shards |"]
    lines += ["|---|---|---|---|---|---|"]
    for images in (10**6, 10**9):
        hours = images / speed / 3600
        terabytes = images * (KB_IN + KB_OUT) / 1e9
        requests = images * (GET + PUT) + images / LISTED * PUT
        in_shards = images / SHARD * (GET + PUT)
        lines.append(
            f"| {images:,} | {hours:,.2f} | ${hours * GPU_HOUR:,.2f} | {terabytes:,.2f} TB | ${requests:,.2f} |"
            f" ${in_shards:,.2f} |"
        )
    return lines


def draw(path: Path) -> None:
    """Speed against cores of one GPU, and against GPUs with 16 cores each; dots were measured."""
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    cores = [1, 2, 4, 8, 12, 16, 24, 32, 48]
    for codec, colour in (("nvjpeg", "tab:blue"), ("nvjpeg420", "tab:green"), ("fast", "tab:orange")):
        parts, found = fitted(codec), measured(codec)
        for part, line in ((cores, "--"), ([each for each in cores if each <= max(found)], "-")):
            label = f"{codec}, model" if line == "-" else None
            left.plot(part, [parts.speed(each)[0] for each in part], line, color=colour, alpha=0.6, label=label)
        left.plot([*found], [*found.values()], "o", color=colour)
    engine = fitted("nvjpeg").engine
    left.axhline(engine, color="grey", linestyle=":")
    left.text(1, engine * 0.94, "engine alone", color="grey")
    left.set(
        xlabel="CPU cores of one H200",
        ylabel="images/s",
        title="One GPU; dots are measured, dashes lead beyond",
        xlim=(0, 49),
    )
    rows = json.loads((RESULTS / "several-gpus-h200.json").read_text())["rows"]
    for part, label, colour in (
        ("infer", "infer.py devices=", "tab:blue"),
        ("train", "train.py trainer=ddp", "tab:red"),
    ):
        speeds = {row["devices"]: row["images_per_s"] for row in rows if row["part"] == part}
        right.plot([*speeds], [*speeds.values()], "o", color=colour, label=f"{label}, measured")
        if part == "infer":
            gpus = [1, 2, 4, 8]
            right.plot(
                gpus, [each * speeds[1] for each in gpus], "--", color=colour, alpha=0.6, label=f"{label}, model"
            )
    right.set(xlabel="GPUs, 16 cores each", ylabel="images/s", title="Several GPUs; 4 and 8 were not run")
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def list_files(folder: Path, counts: list[int]) -> list[dict]:
    """Seconds and memory of finding that many images, as `infer.py input=` does before it translates the first one."""
    rows, made = [], 0
    for count in counts:
        for number in range(made, count):
            path = folder / f"{number // 1000:05d}/{number:09d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        made = count
        began = time.perf_counter()
        found = find_inputs(str(folder), layout="inputs", direction="AtoB", pages="first", skipped={})
        seconds = time.perf_counter() - began
        assert len(found) == count
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append({"files": count, "seconds": round(seconds, 3), "peak_mb": round(peak, 1)})
        print(f"{count:,} files: {seconds:.2f} s, {peak:,.0f} MB")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("picture", type=Path, nargs="?", help="where to draw it")
    parser.add_argument("--files", type=Path, help="an empty folder: measure how long listing takes there")
    parser.add_argument("--counts", default="1000,10000,100000", help="numbers of files for it")
    options = parser.parse_args()
    if options.files is not None:
        rows = list_files(options.files, [int(each) for each in options.counts.split(",")])
        report = head(commit()) | {"load": os.getloadavg()[0], "rows": rows}
        (RESULTS / "listing-cpu.json").write_text(json.dumps(report, indent=1) + "\n")
        return
    print("\n".join([*table(), "", *prices(measured("nvjpeg")[16])]))
    parts = fitted("nvjpeg")
    print(
        "\nsimulated, 16 cores: "
        + ", ".join(
            f"{count:,} images {simulated(parts, cores=16, images=count):,.0f}/s" for count in (320, 3_200, 320_000)
        )
    )
    if options.picture is not None:
        draw(options.picture)


if __name__ == "__main__":
    main()
