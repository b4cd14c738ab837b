"""Check the files that a run has written."""

from __future__ import annotations

import math
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from p2p.codecs.pillow import decode
from p2p.data.pairs import Pair
from p2p.pipelines.stages import Stages


def check(paths: list[Path], shape: tuple[int, int, int]) -> dict:
    """Every file is there, beside no others, and decodes to (H, W, C); how large they are."""
    assert len(list(paths[0].parent.iterdir())) == len(paths)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda path: decode(path.read_bytes()).shape == shape, paths))
    return {"files": len(paths), "mean_kb": round(statistics.mean(p.stat().st_size for p in paths) / 1024, 1)}


def worst_psnr(paths: list[Path], others: list[Path]) -> float | None:
    """dB between the pictures of the two files that are least alike; None where all are the same."""
    error = 0.0
    for pair in zip(paths, others, strict=True):
        mine, theirs = (decode(path.read_bytes()).astype(np.float64) for path in pair)
        error = max(error, float(np.square(mine - theirs).mean()))
    return round(10 * math.log10(255**2 / error), 1) if error else None


def same_bytes(stages: Stages, other: Stages, pairs: list[Pair]) -> str:
    """How many of two pipelines' files are the same, and where the pixels of the others differ."""
    files = [[each.path(pair.name).read_bytes() for each in (stages, other)] for pair in pairs]
    differing = [index for index, (mine, theirs) in enumerate(files) if mine != theirs]
    text = f"{len(pairs) - len(differing)} of {len(pairs)}"
    for index in differing[:5]:
        apart = np.abs(np.subtract(*(decode(file).astype(np.int16) for file in files[index])))
        rows = np.flatnonzero(apart.any((1, 2)))
        where = f"rows {rows[0]} to {rows[-1]}" if len(rows) else "none"
        text += f"; {index}: {np.count_nonzero(apart)} values differ by {apart.max()} at most, {where}"
    return text
