"""Where the tiles of an image lie, and how much each of them counts at every pixel. No torch in here.

Tiles lie evenly, and neighbours share `OVERLAP` of their side at least. In the middle of what two of them share, one
fades into the other; the rest of it is thrown away, because a network knows least at the border of what it sees.

    tile 0      |--------------------------|
    tile 1                         |--------------------------|
    weight      1111111111111111111110.0000
                                   0001.1111111111111111111111
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

OVERLAP, FADE = 1 / 4, 1 / 8  # of a tile's side: that two neighbours share, and over which one fades into the other
BITS = 8
ONE = 1 << BITS  # what the weights of a pixel along one axis add up to: whole numbers, whose sums have no order


@dataclass(frozen=True)
class Axis:
    """Tiles along one side of an image.

    Attributes:
        side: of the image, in pixels.
        tile: side of a tile.
        overlap, fade: pixels that neighbours share at least, and over which one fades into the other.
        stride: of the network; as far as the overlap allows, tiles begin at its multiples, where all of its layers
            see the same pixels together as in the whole image.
    """

    side: int
    tile: int
    overlap: int
    fade: int
    stride: int = 1

    def __post_init__(self) -> None:
        assert 0 <= self.fade <= self.overlap <= self.tile // 2, self

    @property
    def step(self) -> int:
        """Tiles begin at multiples of this."""
        return math.gcd(self.stride, 1 << max(0, (self.overlap // 2).bit_length() - 1))

    @cached_property
    def starts(self) -> list[int]:
        """Where tiles begin; the last may reach beyond the image."""
        if self.side <= self.tile:
            return [0]
        steps = -(-(self.side - self.tile) // self.step)  # from the first to the last
        most = (self.tile - self.overlap) // self.step  # from one to the next
        tiles = -(-steps // most) + 1
        return [index * steps // (tiles - 1) * self.step for index in range(tiles)]

    @cached_property
    def weights(self) -> np.ndarray:
        """How much every tile counts at its pixels, int32 (tiles, tile); at a pixel of the image they add up to ONE."""
        starts = np.array(self.starts)
        weights = np.full((len(starts), self.tile), ONE, np.int32)
        for left, (a, b) in enumerate(pairwise(starts)):
            begin = (a + self.tile + b - self.fade) / 2  # of the fade, in the middle of what both share
            places = np.arange(b, a + self.tile)
            rising = np.clip((places + 0.5 - begin) / max(self.fade, 1), 0, 1)
            rising = np.rint(rising * ONE).astype(np.int32)
            weights[left, b - a :] -= rising
            weights[left + 1, : self.tile + a - b] -= ONE - rising
        return weights


def grid(size: tuple[int, int], tile: tuple[int, int], stride: int) -> tuple[Axis, Axis]:
    """The tiles of an image, rows and columns; sizes are heights and widths, in pixels."""
    rows, columns = (
        Axis(side, of_tile, int(of_tile * OVERLAP), int(of_tile * FADE), stride)
        for side, of_tile in zip(size, tile, strict=True)
    )
    return rows, columns


def tiles_of(size: tuple[int, int], tile: tuple[int, int], stride: int) -> int:
    """How many tiles an image has."""
    rows, columns = grid(size, tile, stride)
    return len(rows.starts) * len(columns.starts)


def pad(frame_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """A frame whose last column and row are repeated, (height, width, C), or itself where nothing is to be added.

    Repeated rather than mirrored: the 32 columns beside such a border then are 1 dB nearer to what the network makes of
    them in a photo that goes on (benchmarks: Sizes).
    """
    rows, columns, _ = frame_HWC.shape
    if (rows, columns) == (height, width):
        return frame_HWC
    return np.pad(frame_HWC, ((0, height - rows), (0, width - columns), (0, 0)), mode="edge")
