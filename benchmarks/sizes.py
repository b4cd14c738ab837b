"""How tiles and padding change pictures, and what each size costs: python -m benchmarks.sizes WHAT EXPORT PHOTOS.

    seams      size=tile beside the whole image, and tiles that are cut hard: steps across tiles' borders and elsewhere
    padding    what the last columns before a padded border lose, mirrored and repeated, against those of a larger photo
    cost       seconds, processor time and memory of infer.py by size=, whole commands, of one photo enlarged

EXPORT is a folder of export.py size=dynamic, PHOTOS a folder of A|B images or of photos, larger than two tiles.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from p2p.codecs.pillow import decode
from p2p.data.transforms.tiling import grid
from p2p.deploy.engine import Engine, load_engine
from p2p.pipelines.any_size import Tiles, Whole

CPU = torch.device("cpu")
COST = {"model": [1024], "input": [512, 1024, 2048], "tile": [512, 1024, 2048, 4096]}


def photos_in(folder: Path, *, side: int) -> list[np.ndarray]:
    """Frames of the photos there, of A|B images the left halves, cut to a multiple of `side`."""
    frames = [decode(path.read_bytes()) for path in sorted(folder.glob("*.*"))]
    halves = [frame[:, : frame.shape[1] // 2] if frame.shape[1] == 2 * frame.shape[0] else frame for frame in frames]
    return [half[: half.shape[0] // side * side, : half.shape[1] // side * side] for half in halves]


def whole(engine: Engine, photo: np.ndarray) -> np.ndarray:
    """As size=input."""
    output = np.empty_like(photo)
    Whole(engine.manifest.program.sizes).translate([photo], [output], engine.frames, batch_size=1)
    return output


def tiled(engine: Engine, photo: np.ndarray, side: int, stats: Literal["tile", "image"] = "tile") -> np.ndarray:
    """As size=tile."""
    output = np.empty_like(photo)
    Tiles((side, side), engine.manifest.stride, stats).translate([photo], [output], engine.frames, batch_size=8)
    return output


def cut_hard(engine: Engine, photo: np.ndarray, side: int) -> np.ndarray:
    """Tiles without overlap."""
    output = np.empty_like(photo)
    for top in range(0, photo.shape[0], side):
        for left in range(0, photo.shape[1], side):
            part = slice(top, top + side), slice(left, left + side)
            output[part] = engine.frames(torch.from_numpy(photo[part].copy())[None])[0].numpy()
    return output


def steps(output: np.ndarray, columns: np.ndarray) -> tuple[float, float]:
    """Mean step in 8-bit levels from one column to the next: the largest among `columns`, and the mean elsewhere."""
    step = np.abs(np.diff(output.astype(float), axis=1)).mean((0, 2))
    return step[columns].max(), np.delete(step, columns).mean()


def seams(engine: Engine, photos: list[np.ndarray], *, side: int) -> None:
    """A row for each way, over all photos."""
    rows: dict[str, list[tuple[float, ...]]] = {}
    for photo in photos:
        _, columns = grid(photo.shape[:2], (side, side), engine.manifest.stride)
        fades = [(a + b + side) // 2 for a, b in zip(columns.starts, columns.starts[1:], strict=False)]
        inside = np.concatenate([np.arange(x - columns.fade // 2, x + columns.fade // 2) for x in fades])
        hard = np.arange(side, photo.shape[1], side) - 1
        oracle = whole(engine, photo)
        for name, output, at in (
            ("whole image, at the tiles' fades", oracle, inside),
            ("size=tile", tiled(engine, photo, side), inside),
            ("size=tile tile_stats=image", tiled(engine, photo, side, "image"), inside),
            ("whole image, at the hard cuts", oracle, hard),
            ("tiles cut hard", cut_hard(engine, photo, side), hard),
        ):
            error = ((output.astype(float) - oracle) ** 2).mean()
            rows.setdefault(name, []).append((*steps(output, at), error))
    print(f"{engine.manifest.norm_stats}, tiles of {side}, {len(photos)} photos")
    for name, values in rows.items():
        border, elsewhere, error = np.mean(values, axis=0)
        psnr = 10 * np.log10(255**2 / error) if error else float("inf")
        print(f"| {name} | {border:.2f} | {elsewhere:.2f} | {border / elsewhere:.2f} | {psnr:.1f} |")


def padding(engine: Engine, photos: list[np.ndarray], *, strip: int = 32) -> None:
    """PSNR of the last columns before the border, against those of a photo that goes on."""
    stride = engine.manifest.stride
    for part in (1, 2, 3):
        missing = part * stride // 4
        errors: dict[str, list[float]] = {"reflect": [], "edge": [], "symmetric": []}
        for photo in photos:
            width = photo.shape[1] // stride * stride
            kept, real = width - missing, whole(engine, photo[:, :width].copy())
            for mode, found in errors.items():
                padded = np.pad(photo[:, :kept], ((0, 0), (0, missing), (0, 0)), mode=mode)
                columns = slice(kept - strip, kept)
                found.append(((whole(engine, padded)[:, columns].astype(float) - real[:, columns]) ** 2).mean())
        print(
            f"| {missing} of {stride} | "
            + " | ".join(f"{mode} {10 * np.log10(255**2 / np.mean(each)):.2f} dB" for mode, each in errors.items())
            + " |"
        )


def cost(export: Path, photos: list[np.ndarray]) -> None:
    """Of whole commands. The peak is of the largest process; workers of overlap have their own."""
    for size, sides in COST.items():
        for side in sides:
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "in").mkdir()
                Image.fromarray(photos[0]).resize((side, side)).save(f"{folder}/in/photo.png")
                command = [sys.executable, "infer.py", f"export={export}", f"input={folder}/in", f"output={folder}/out"]
                command += [f"size={size}", f"run_dir={folder}/run", "gallery=0", "pipeline=sequential", "batch_size=4"]
                code = (
                    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=-3);"
                    "used = resource.getrusage(resource.RUSAGE_CHILDREN);"
                    "print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6)"
                )
                began = time.perf_counter()
                done = subprocess.run(
                    [sys.executable, "-c", code, *command], capture_output=True, text=True, check=True
                )
                seconds = time.perf_counter() - began
                processor, gigabytes = map(float, done.stdout.split())
                print(f"| {size} | {side}x{side} | {seconds:.1f} | {processor:.1f} | {gigabytes:.2f} |", flush=True)


def main() -> None:
    """See above."""
    what, export, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    engine = load_engine(export, device=CPU)
    side = engine.manifest.input_shape[1]
    photos = photos_in(folder, side=side)
    if what == "seams":
        seams(engine, photos, side=side)
    elif what == "padding":
        padding(engine, photos)
    else:
        cost(export, photos)


if __name__ == "__main__":
    main()
