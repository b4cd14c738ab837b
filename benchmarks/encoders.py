#!/usr/bin/env python3
"""Which encoder takes the least processor time for an image, and how exact is it? One core, no GPU.

    python -m benchmarks.encoders [--steps 300] [--frames FILE.npy] [--photos FOLDER] [--rounds 9] [--output FILE]

Frames are outputs of a narrow U-Net that is trained for --steps steps (four minutes; FILE keeps them), and the left
squares of photos, resized to 256x256. All candidates take turns. The figure of each is the median of its rounds, in
processor time an image. Other libraries than p2p's are measured if they are installed:

    pip install imagecodecs opencv-python-headless 'pyvips[binary]' pyjpegli deflate zlib-ng
"""

import argparse
import json
import statistics
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.encodings import OTHERS, Encode, lossless, lossy, read_back
from benchmarks.inputs import fit, variant
from benchmarks.record import ROOT, commit, head
from p2p.models.unet import UNet
from p2p.pipelines.worker import KEPT
from p2p.report.tables import show
from p2p.system.memory import keep_freed_memory

COUNT, SIDE = 32, 256
QUALITY = 96  # of codec=fast
ENOUGH = 0.05  # dB that count as the same


def outputs(steps: int) -> np.ndarray:
    """uint8 (COUNT, SIDE, SIDE, 3): of a generator that has seen the shipped pairs."""
    torch.manual_seed(0)
    network = UNet(image_size=SIDE, width=32)
    fit(network, steps=steps, device=torch.device("cpu"), batch=4)
    network.train()  # each image by its own statistics
    inputs = torch.from_numpy(np.stack([variant(13 * index)[:, :SIDE] for index in range(COUNT)])).permute(0, 3, 1, 2)
    with torch.no_grad():
        images = torch.cat([network(image[None].float() / 127.5 - 1) for image in inputs])
    return ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def reduced(path: Path) -> np.ndarray:
    image = Image.open(path).convert("RGB")
    return np.array(image.crop((0, 0, image.height, image.height)).resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def fidelity(encode: Encode, frames: list[np.ndarray], *, lossy: bool) -> dict[str, float]:
    """KB an image; PSNR in dB, the images' mean and worst, and that of each colour."""
    files = [bytes(encode(frame)) for frame in frames]
    found = {"kb": sum(map(len, files)) / len(files) / 1000}
    if lossy:
        pairs = zip(map(read_back, files), frames, strict=True)
        errors = np.array([np.square(read.astype(float) - frame).mean((0, 1)) for read, frame in pairs])
        images, colours = (10 * np.log10(255**2 / each) for each in (errors.mean(1), errors.mean(0)))
        found |= {"psnr": float(images.mean()), "worst": float(images.min())}
        found |= dict(zip(("red", "green", "blue"), map(float, colours), strict=True))
    return found


def candidates(frames: list[np.ndarray]) -> tuple[dict[str, Encode], dict[str, dict[str, float]]]:
    """What to measure, and what is known of each; the lossy ones also at the quality that is as close as the first."""
    encoders, rows, wanted = {}, {}, None
    for name, encode in lossy().items():
        known = {q: fidelity(partial(encode, quality=q), frames, lossy=True) for q in range(80, 101)}
        wanted = known[QUALITY]["psnr"] - ENOUGH if wanted is None else wanted
        equal = next((quality for quality, row in known.items() if row["psnr"] >= wanted), None)
        for quality in sorted({QUALITY, equal or 100}):
            at = f"{name}, q {quality}"
            encoders[at], rows[at] = partial(encode, quality=quality), known[quality] | {"equal": quality == equal}
    for name, encode in lossless().items():
        encoders[name], rows[name] = encode, fidelity(encode, frames, lossy=False)
    return encoders, rows


def measure(frames: list[np.ndarray], rounds: int) -> dict[str, dict[str, float]]:
    encoders, rows = candidates(frames)
    times = {name: [] for name in encoders}
    for _ in range(rounds):
        for name, encode in encoders.items():
            began = time.process_time_ns()
            for frame in frames:
                encode(frame)
            times[name].append((time.process_time_ns() - began) / len(frames) / 1000)
    return {name: {"us": statistics.median(times[name]), "least_us": min(times[name])} | rows[name] for name in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--frames", type=Path, help="where the generator's frames are kept, or taken from")
    parser.add_argument("--photos", type=Path, help="folder of images at least 256 pixels high")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/encoders-cpu.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory(KEPT)  # as workers do
    if options.frames and options.frames.exists():
        drawn = np.load(options.frames)
    else:
        drawn = outputs(options.steps)
        if options.frames:
            np.save(options.frames, drawn)
    sets = {"outputs of a generator": list(drawn[:COUNT])}
    if options.photos:
        sets["photos"] = [reduced(path) for path in sorted(options.photos.iterdir())]
    result = head(commit(), *OTHERS, "simplejpeg", "isal", "pillow", "torchvision", "numpy") | {"steps": options.steps}
    for title, frames in sets.items():
        rows = measure(frames, options.rounds)
        form = {"us": "{:.0f}", "kb": "{:.1f}", "psnr": "{:.1f}", "worst": "{:.1f}"}
        cells = [[name, *(form[key].format(row[key]) for key in form if key in row)] for name, row in rows.items()]
        show(f"{title}: {len(frames)} of 256x256", ["", "us", "KB", "PSNR", "worst"], cells)
        result[title] = rows
    options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
