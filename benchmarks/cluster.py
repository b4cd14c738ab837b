"""How much slower is pipeline=ray than overlap on one machine? The same images by each, in turns, in new processes.

python -m benchmarks.cluster --rounds 2
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from benchmarks.record import ROOT, commit, head
from p2p.shipped import SAMPLES

RUN = """
import json, sys, p2p
done = p2p.infer(sys.argv[1:])
print("RESULT", json.dumps({"written": done.written, "images_per_s": done.score}))
"""


def main() -> None:
    """Measure, and write benchmarks/results/cluster-cpu.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        inputs = make_inputs(Path(folder) / "inputs", args.images)
        for round_ in range(args.rounds):
            for pipeline in ("overlap", "ray"):
                rows.append({"round": round_, "pipeline": pipeline, "load": os.getloadavg()[0]})
                rows[-1] |= measure(pipeline, inputs, Path(folder) / pipeline)
                print(rows[-1], flush=True)
        same = all(
            path.read_bytes() == (Path(folder) / "ray" / path.name).read_bytes()
            for path in (Path(folder) / "overlap").glob("*.png")
        )
    record = {**head(commit(), "ray"), "images": args.images, "same_bytes": same, "rows": rows}
    (ROOT / "benchmarks/results/cluster-cpu.json").write_text(json.dumps(record, indent=1) + "\n")


def make_inputs(folder: Path, images: int) -> Path:
    """Halves of the samples, as JPEG of 256x256."""
    folder.mkdir()
    samples = sorted((SAMPLES / "train").glob("*.jpg"))
    for number in range(images):
        picture = Image.open(samples[number % len(samples)]).convert("RGB")
        picture.crop((0, 0, picture.height, picture.height)).resize((256, 256)).save(folder / f"{number:03d}.jpg")
    return folder


def measure(pipeline: str, inputs: Path, output: Path) -> dict:
    """Seconds of a whole command, and images per second from the pipeline's start to the last file."""
    words = [f"input={inputs}", f"output={output}", f"run_dir={output}-run", f"pipeline={pipeline}"]
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words, "weights=emoji", "batch_size=8", "gallery=0", "device=cpu"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    return {"command_s": round(seconds, 1)} | json.loads(done.stdout.rpartition("RESULT ")[2])


if __name__ == "__main__":
    main()
