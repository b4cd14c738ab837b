#!/usr/bin/env python3
"""How long does each library take to decode A|B pairs, whole or only the half that is needed? One core, no GPU.

    python -m benchmarks.decoders FOLDER [FOLDER ...] [--turbojpeg LIBRARY] [--rounds 9] [--output FILE]

Processor time an image, median of rounds in which all take turns, and the largest difference from Pillow's pixels.
OpenCV and imagecodecs are measured where they are installed. LIBRARY is a libturbojpeg.so of version 3, whose
tj3SetCroppingRegion decodes only a part; no Python package offers it, so it is called by ctypes.
"""

import argparse
import ctypes
import io
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torchvision.io import decode_jpeg as torchvision_jpeg

from benchmarks.record import ROOT, commit, head
from p2p.codecs.fast import decode_jpeg
from p2p.codecs.pillow import decode
from p2p.pipelines.worker import KEPT
from p2p.report.tables import show
from p2p.system.memory import keep_freed_memory

Decode = Callable[[bytes], np.ndarray]
OTHERS = ("imagecodecs", "opencv-python-headless")


class Region(ctypes.Structure):
    """tjregion: of zeros, the whole image."""

    _fields_ = [(name, ctypes.c_int) for name in ("x", "y", "width", "height")]


class TurboJpeg:
    """Decodes a part of an image; its left edge has to be one of an MCU, 8 or 16 pixels wide."""

    def __init__(self, library: Path):
        self._library = ctypes.CDLL(str(library))
        self._library.tj3Init.restype = ctypes.c_void_p
        self._handle = ctypes.c_void_p(self._library.tj3Init(1))  # TJINIT_DECOMPRESS

    def decode(self, data: bytes, *, left: int, out: np.ndarray) -> np.ndarray:
        """As many columns from `left` on as `out`, uint8 (H, W, 3), has; all of its rows."""
        height, width, _ = out.shape
        size = ctypes.c_size_t(len(data))
        failed = self._library.tj3DecompressHeader(self._handle, data, size)
        failed |= self._library.tj3SetCroppingRegion(self._handle, Region(left, 0, width, height))
        pixels = ctypes.c_void_p(out.ctypes.data)
        failed |= self._library.tj3Decompress8(self._handle, data, size, pixels, 0, 0)  # TJPF_RGB
        assert not failed
        return out


def by_torchvision(data: bytes) -> np.ndarray:
    return torchvision_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8)).permute(1, 2, 0).numpy()


def decoders(shape: tuple[int, ...], library: Path | None) -> dict[str, tuple[Decode, slice]]:
    """By name: what decodes, and the columns that come out."""
    height, width, _ = shape
    whole, left, right = slice(0, width), slice(0, width // 2), slice(width // 2, width)
    found: dict[str, tuple[Decode, slice]] = {
        "codec=fast (simplejpeg)": (partial(decode_jpeg, channels=3), whole),
        "simplejpeg, fast upsampling": (lambda data: simplejpeg.decode_jpeg(data, "RGB", fastupsample=True), whole),
        "Pillow": (lambda data: np.asarray(Image.open(io.BytesIO(data))), whole),
        "torchvision": (by_torchvision, whole),
    }
    if find_spec("imagecodecs"):
        import imagecodecs

        found["imagecodecs"] = imagecodecs.jpeg8_decode, whole
    if find_spec("cv2"):
        import cv2

        cv2.setNumThreads(1)
        found["OpenCV"] = lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), whole
    if library:
        turbo = TurboJpeg(library)
        for name, columns in {"whole": whole, "left half": left, "right half": right}.items():
            out = np.empty((height, columns.stop - columns.start, 3), np.uint8)
            found[f"TurboJPEG 3, {name}"] = partial(turbo.decode, left=columns.start, out=out), columns
    return found


def measure(files: list[bytes], rounds: int, library: Path | None) -> dict[str, dict]:
    expected = [decode(data) for data in files]
    known = decoders(expected[0].shape, library)
    rows, times = {}, {name: [] for name in known}
    for name, (run, columns) in known.items():
        pairs = zip(map(run, files), expected, strict=True)
        errors = np.array([np.abs(found.astype(int) - frame[:, columns]).max((0, 2)) for found, frame in pairs])
        rows[name] = {"largest": int(errors.max()), "columns": int(errors.any(0).sum())}
    for _ in range(rounds):
        for name, (run, _) in known.items():
            began = time.process_time_ns()
            for data in files:
                run(data)
            times[name].append((time.process_time_ns() - began) / len(files) / 1000)
    return {name: {"us": statistics.median(times[name]), "least_us": min(times[name])} | rows[name] for name in known}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="of JPEG files of one size")
    parser.add_argument("--turbojpeg", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/decoders-cpu.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory(KEPT)  # as workers do
    result = head(commit(), *OTHERS, "simplejpeg", "pillow", "torchvision", "numpy")
    for folder in options.folders:
        files = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))[:64]]
        height, width, _, sampling = simplejpeg.decode_jpeg_header(files[0])
        title = f"{len(files)} of {width}x{height}, {sampling}, {sum(map(len, files)) / len(files) / 1000:.0f} KB"
        result[f"{folder.name}: {title}"] = rows = measure(files, options.rounds, options.turbojpeg)
        cells = [[name, f"{row['us']:.0f}", str(row["largest"]), str(row["columns"])] for name, row in rows.items()]
        show(title, ["", "us", "largest difference", "columns that differ"], cells)
    options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
