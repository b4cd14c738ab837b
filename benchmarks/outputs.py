"""The files that a run has written: whether they are what they should be."""

from __future__ import annotations

import statistics
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from p2p.codecs.pillow import decode
from p2p.data.pairs import Pair
from p2p.pipelines.slots import hwc
from p2p.pipelines.stages import Stages


def check(stages: Stages, pairs: list[Pair]) -> dict:
    """Every file is there and can be decoded; how large they are."""
    paths = [stages.path(pair.name) for pair in pairs]
    assert len(list(stages.files.output.iterdir())) == len(paths)
    shape = hwc(stages.engine.manifest.output_shape)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda path: decode(path.read_bytes()).shape == shape, paths))
    return {"files": len(paths), "mean_kb": round(statistics.mean(p.stat().st_size for p in paths) / 1024, 1)}


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
