"""How a matrix product is cut into tiles: which ways are worth a trial, and which of them is fastest here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from p2p.system.gpu_faults import of_gpu


@dataclass(frozen=True)
class Tile:
    """One program's share.

    Attributes:
        rows, columns: of the output.
        depth: of the inputs at a time.
        stages: of the inputs that are on their way at the same time.
        warps: that compute.
        splits: programs that share the terms of one tile.
    """

    rows: int
    columns: int
    depth: int
    stages: int
    warps: int
    splits: int = 1


# By rows, the best of some sixty on an H200 for the layers of unet_256 at batches of 8 and 32.
_TILES = (
    Tile(256, 128, 64, 3, 8),
    Tile(128, 256, 64, 3, 8),
    Tile(128, 128, 64, 4, 4),
    Tile(128, 128, 64, 3, 4),
    Tile(128, 128, 128, 3, 8),
    Tile(64, 256, 64, 4, 4),
    Tile(64, 128, 128, 3, 4),
    Tile(64, 64, 128, 4, 4),
    Tile(128, 64, 64, 4, 4),
    Tile(128, 16, 64, 4, 4),
    Tile(256, 16, 64, 4, 4),
)


def candidates(rows: int, columns: int, depth: int, *, item_bytes: int = 2, processors: int = 132) -> list[Tile]:
    """Tiles worth a trial for a product of so many rows and columns with 4 * depth terms each, the likeliest first.

    Likely is what leaves few multiplications and few processors unused. Nothing that does not fit is returned:
    `depth` of a tile divides the layer's, and `splits` the number of steps.

    Args:
        item_bytes: 2 for float16, 1 for 8 bits, of which a tile is twice as deep.
        processors: streaming multiprocessors of the GPU.
    """
    ranked: dict[Tile, float] = {}
    for shape in _TILES:
        if (columns <= 16) != (shape.columns == 16) or (shape.columns > max(64, columns) and columns > 16):
            continue
        deep = math.gcd(shape.depth * 2 // item_bytes, depth)
        if deep & (deep - 1) or deep * item_bytes < 32:
            deep = depth & -depth
        steps = 4 * depth // deep
        tiles = math.ceil(rows / shape.rows) * math.ceil(columns / shape.columns)
        for splits in (1, 2, 4, 8):
            if steps % splits or (splits > 1 and (steps // splits < 4 or tiles * splits > 3 * processors)):
                continue
            tile = Tile(shape.rows, shape.columns, deep, shape.stages, shape.warps, splits)
            # Time in multiplications: of a program's own, or what the copies of too small a tile take, and of its
            # begin and end; then of the partial sums, which meet in memory and are added up by one program.
            work = steps // splits * deep * max(shape.rows * shape.columns, (shape.rows + shape.columns) * 64)
            meeting = 4e6 + 333 * splits * shape.rows * shape.columns if splits > 1 else 0
            ranked[tile] = math.ceil(tiles * splits / processors) * (work + 4e6) + meeting
    return sorted(ranked, key=ranked.__getitem__)


def fastest(tiles: list[Tile], run: Callable[[Tile], Callable[[], object]]) -> Tile:
    """The fastest of some tiles, by the median of some runs on the current GPU.

    Args:
        run: gives what to measure for a tile; an exception says that the GPU cannot do it.
    """
    timed = dict(_timed(tiles, run))
    if not timed:
        raise ValueError("none of the tiles fits this GPU: use another backend")
    return min(timed, key=timed.__getitem__)


def _timed(tiles: list[Tile], run: Callable[[Tile], Callable[[], object]]) -> Iterator[tuple[Tile, float]]:
    for tile in tiles:
        try:
            work = run(tile)
            work()
            torch.cuda.synchronize()
        except Exception as error:  # too much shared memory, say: Triton's errors are of many kinds
            if of_gpu(error):
                raise
            continue
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):  # the host launches slower than such kernels run
            for _ in range(8):
                work()
        graph.replay()
        seconds = []
        for _ in range(5):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            graph.replay()
            end.record()
            end.synchronize()
            seconds.append(begin.elapsed_time(end))
        yield tile, sorted(seconds)[2]
