"""The rows of `benchmarks.pipeline` that measure the peers: a search for their best settings, then runs with these."""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks import bgr, dali, inputs, peer
from benchmarks.outputs import check, worst_psnr
from benchmarks.rows import Row
from p2p.data.pairs import Pair

PEERS = {"peer": peer, "dali": dali}


def measure(
    row: Row,
    generate: Callable[[torch.Tensor], torch.Tensor],
    pairs: list[Pair],
    folder: Path,
    *,
    repeats: int,
    references: list[Path],
    searched: dict[tuple[str, str, int], list[tuple[float, dict]]],
) -> dict:
    """A peer's row, with the settings that were fastest over half of the images, and all that were tried.

    They are searched once for each format and number of cores, at the size of batch that comes first.

    Args:
        generate: see `benchmarks.peer.make_generate`.
        folder: in which outputs are written, and replaced.
        references: our own files of the first pairs, which the pictures are compared with.
        searched: images/s and settings that were tried, by codec, format and cores; filled here.
    """
    kind, output, shape = PEERS[row.codec], folder / "peer", (inputs.SIZE, inputs.SIZE, 3)

    def run(some: list[Pair], settings: dict) -> dict[str, float]:
        shutil.rmtree(output, ignore_errors=True)
        os.sync()  # as for our own rows
        output.mkdir()
        facts = {"batch": row.batch, "shape": shape, "output": output, "format": row.format}
        return kind.run(generate, some, **facts, **settings)

    place, half = (row.codec, row.format, row.cores), pairs[: max(1, len(pairs) // 2)]
    with _fastest_kernels():
        if place not in searched:
            ways = kind.candidates(row.cores)
            searched[place] = [(run(half, settings)["images_per_s"], settings) for settings in ways]
        _, best = max(searched[place], key=lambda each: each[0])
        runs = [run(pairs, best) for _ in range(repeats)]
    paths = [output / f"{pair.name}.{row.format}" for pair in pairs]
    return {
        "images_per_s": round(statistics.median(each["images_per_s"] for each in runs), 1),
        "all_runs": [round(each["images_per_s"], 1) for each in runs],
        "cores_busy": round(runs[-1]["cores_busy"], 1),
        "settings": best,
        "tried": [settings | {"images_per_s": round(speed, 1)} for speed, settings in searched[place]],
        "library": bgr.LIBRARY,
        "worst_psnr_to_ours": worst_psnr(paths[: len(references)], references),
        **check(paths, shape),
    }


@contextmanager
def _fastest_kernels() -> Iterator[None]:
    """cuDNN's, whichever they are; our own pipelines ask for deterministic ones, and that stays set."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = False, True
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
