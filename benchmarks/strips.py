"""Memory and time of `infer.py size=tile` for a large TIFF file: python -m benchmarks.strips WIDTHxHEIGHT ...

The network is a stand-in that gives the negative, in tiles of 256x256 pixels, so that what is measured is the rest:
reading, blending and writing. Each size is one process, and its figures are those over its start.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from p2p.codecs.fast import Fast
from p2p.data.pairs import Pair, Source
from p2p.data.reading import RGB
from p2p.data.transforms.torchvision import Torchvision
from p2p.pipelines import sequential
from p2p.pipelines.stages import Stages
from p2p.profiling.clock import Clock

SHAPE = [3, 256, 256]


class Negative:
    """In the place of an engine."""

    device, takes_frames = torch.device("cpu"), False
    manifest = SimpleNamespace(
        input_shape=SHAPE,
        output_shape=SHAPE,
        stride=4,
        program=SimpleNamespace(sizes=None, min_batch=1),
        readings=(RGB, RGB),
    )

    def frames(self, frames_NHWC: torch.Tensor) -> torch.Tensor:
        """Frames -> frames."""
        return 255 - frames_NHWC


def peak_kb() -> int:
    """Memory that this process had at the most (Linux)."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def measure(path: Path, output: Path) -> None:
    """Translate a file in this process."""
    options = {"transform": Torchvision(image_size=256), "codec": Fast(format="tiff"), "clock": Clock(), "size": "tile"}
    stages = Stages(engine=Negative(), output=output, **options)
    stages.warmup(4, images=1)
    Path("/proc/self/clear_refs").write_text("5")  # or the peak of the parent, of which this is a fork, counts
    start, began, processor = peak_kb(), time.perf_counter(), time.process_time()
    sequential.run([Pair("a", Source(path))], stages, batch_size=4)
    assert not stages.failures, stages.failures
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    megabytes = (peak_kb() - start) / 1000
    with Image.open(path) as image:
        size = "x".join(map(str, image.size))
    print(f"| {size} | {megabytes:,.0f} | {seconds:.0f} | {processor:.1f} |", flush=True)


def main() -> None:
    """See above."""
    if sys.argv[1] == "--one":
        measure(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    print("| pixels | MB at the peak | seconds | processor seconds |\n|---|---|---|---|", flush=True)
    for size in sys.argv[1:]:
        width, height = map(int, size.split("x"))
        with tempfile.TemporaryDirectory() as folder:
            ramp = np.arange(width, dtype=np.uint32)[None, :] + np.arange(height, dtype=np.uint32)[:, None]
            grey = Image.fromarray((ramp // 37 % 256).astype(np.uint8))
            Image.merge("RGB", [grey] * 3).save(f"{folder}/a.tif")
            subprocess.run([sys.executable, "-m", "benchmarks.strips", "--one", f"{folder}/a.tif", folder], check=True)


if __name__ == "__main__":
    main()
