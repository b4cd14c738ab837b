#!/usr/bin/env python3
"""JPEG decoded by a GPU: how fast, and how far from libjpeg, before and behind a generator?

    python -m benchmarks.gpu_decoders [--folder DIR ...] [--images 1024] [--commit ...] [--output FILE]

Compares p2p's use of nvJPEG, which interpolates halved chroma, with torchvision's, which repeats it. Speed: the files
of `benchmarks.pipeline`, in memory, one thread, by batches. Pixels: the shipped pairs, written with chroma whole and
halved, and the JPEG files of each --folder; what libjpeg-turbo decodes is right. The generator is taught for 400 steps.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from benchmarks import inputs
from benchmarks.engines import make_engine, make_network
from benchmarks.record import ROOT, commit, head
from p2p.codecs.codec import CodedFiles
from p2p.codecs.jpeg import gpu_size
from p2p.codecs.nvjpeg import NvJpegDecoder
from p2p.codecs.pillow import decode
from p2p.data.pairs import find_inputs
from p2p.system import atomic

CUDA = torch.device("cuda", 0)
BATCHES = (1, 8, 32, 64)
COMPARED = 64  # images of a set


class NvJpeg:
    """p2p's."""

    def __init__(self) -> None:
        self._decoder, self._stream = NvJpegDecoder(CUDA), torch.cuda.Stream()

    def prepare(self, files: list[bytes]) -> CodedFiles:
        """What workers find out about files."""
        arrays = [np.frombuffer(file, np.uint8) for file in files]
        facts = [each.ctypes.data for each in arrays], [*map(len, files)], [*map(gpu_size, files)]
        return CodedFiles(*map(np.array, facts))

    def __call__(self, files: CodedFiles) -> list[torch.Tensor]:
        """uint8 (H, W, 3) of each, on the GPU."""
        groups, missed = self._decoder.decode(files, stream=self._stream)
        assert not missed
        self._stream.synchronize()
        placed = {place: frame for places, frames in groups for place, frame in zip(places, frames, strict=True)}
        return [placed[place] for place in range(len(files.lengths))]


class Torchvision:
    """Its binding of the same library."""

    def prepare(self, files: list[bytes]) -> list[torch.Tensor]:
        """As it takes them."""
        return [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]

    def __call__(self, files: list[torch.Tensor]) -> list[torch.Tensor]:
        """uint8 (H, W, 3) of each, on the GPU."""
        frames = decode_jpeg(files, mode=ImageReadMode.RGB, device=CUDA)
        torch.cuda.synchronize()
        return [frame.permute(1, 2, 0) for frame in frames]


def speed(decoder: NvJpeg | Torchvision, files: list[bytes], batch: int) -> float:
    """Images/s, the second time round."""
    batches = [decoder.prepare(files[start : start + batch]) for start in range(0, len(files) - batch + 1, batch)]
    for _ in range(2):
        begin = time.perf_counter()
        for each in batches:
            decoder(each)
        seconds = time.perf_counter() - begin
    return len(batches) * batch / seconds


def written(**options) -> list[bytes]:
    buffers = [BytesIO() for _ in range(COMPARED)]
    for number, buffer in enumerate(buffers):
        Image.fromarray(inputs.variant(number)).save(buffer, "JPEG", quality=95, **options)
    return [buffer.getvalue() for buffer in buffers]


def apart(frames: list[np.ndarray], expected: list[np.ndarray]) -> dict:
    """Largest difference, and PSNR in dB of the mean and the worst image; None where all are equal."""
    differences = [np.abs(np.subtract(*pair, dtype=np.int16)) for pair in zip(frames, expected, strict=True)]
    errors = np.array([np.mean(np.square(each, dtype=np.float64)) for each in differences])
    psnr = [
        round(float(10 * np.log10(255**2 / error)), 1) if error else None for error in (errors.mean(), errors.max())
    ]
    return {"largest": int(max(each.max() for each in differences)), "psnr_db": psnr[0], "psnr_worst_db": psnr[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, nargs="*", default=[])
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--commit", default=commit(), help="where the code is no git checkout")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/gpu-decoders.json")
    options = parser.parse_args()
    decoders = {"nvjpeg": NvJpeg(), "torchvision": Torchvision()}
    record = head(options.commit, "torchvision") | {"speed": {}, "pixels": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs.make(folder / "inputs", options.images)
        files = [path.read_bytes() for path in sorted((folder / "inputs").iterdir())]
        for kind, decoder in decoders.items():
            record["speed"][kind] = {batch: round(speed(decoder, files, batch)) for batch in BATCHES}
            print(kind, record["speed"][kind], "images/s by batch", flush=True)
        pairs = find_inputs(str(folder / "inputs"), layout="side_by_side")
        engine = make_engine(folder, make_network(256, fit=400), pairs, image_size=256, backend="eager", max_batch=32)
    sets = {f"samples, {kind}": written(subsampling=kind) for kind in ("4:4:4", "4:2:2", "4:2:0")}
    for folder in options.folder:
        paths = sorted(folder.glob("*.jpg"))[:COMPARED]
        sets[folder.name] = [path.read_bytes() for path in paths]
    for name, files in sets.items():
        expected = [decode(file) for file in files]
        translated = outputs(engine, expected)
        for kind, decoder in decoders.items():
            frames = [frame.cpu().numpy() for frame in decoder(decoder.prepare(files))]
            row = {"set": name, "decoder": kind, "inputs": apart(frames, expected)}
            row["outputs"] = apart(outputs(engine, frames), translated)
            record["pixels"].append(row)
            print(row, flush=True)
    atomic.write(options.output, json.dumps(record, indent=1) + "\n")


def outputs(engine, frames: list[np.ndarray]) -> list[np.ndarray]:
    """What the generator makes of the left halves."""
    return [engine.frames(torch.from_numpy(frame[None, :, :256].copy())).cpu().numpy()[0] for frame in frames]


if __name__ == "__main__":
    main()
