"""Images at their own sizes, between loading and saving: each whole, or in tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import torch

from p2p.batch import from_frames
from p2p.data.transforms.tiling import BITS, Axis, grid, pad
from p2p.deploy.manifest import Manifest
from p2p.deploy.sizes import Size, Sizes
from p2p.pipelines.groups import tiles_for
from p2p.pipelines.image_stats import ImageStats

T = TypeVar("T")
Frame = Any  # (H, W, C): an array, or what gives or takes rows as one does, see `p2p.pipelines.row_files`
Generate = Callable[[torch.Tensor], torch.Tensor]  # frames of one size, (N, H, W, C) -> (N, H, W, C') on any device


class AnySize(Protocol):
    """What `size=` chooses besides "model"."""

    def translate(
        self, frames: Sequence[Frame], outputs: Sequence[Frame], generate: Generate, *, batch_size: int
    ) -> None:
        """Frames as they are loaded, (H, W, C), into `outputs`, (H, W, C') of their sizes and of `generate`'s dtype."""


def any_size(size: str, manifest: Manifest, *, tile_stats: Literal["tile", "image"]) -> AnySize | None:
    """What does it, with a program for which `p2p.deploy.manifest.check_size` allows it; None for "model"."""
    match size:
        case "input":
            assert manifest.program.sizes is not None
            return Whole(manifest.program.sizes)
        case "tile":
            return Tiles(*tiles_for(manifest), tile_stats)
    return None


@dataclass(frozen=True)
class Whole:
    """Each image at once, its last column and row repeated up to the next size that the program takes."""

    sizes: Sizes

    def translate(
        self, frames: Sequence[Frame], outputs: Sequence[Frame], generate: Generate, *, batch_size: int
    ) -> None:
        """See `AnySize`."""
        by_size: dict[Size, list[int]] = {}
        for place, frame_HWC in enumerate(frames):
            by_size.setdefault(self.sizes.around(frame_HWC.shape[:2]), []).append(place)
        for seen, places in by_size.items():
            for some in batches(places, batch_size):
                translated = generate(stacked([pad(frames[place], *seen) for place in some])).cpu().numpy()
                for place, frame_HWC in zip(some, translated, strict=True):
                    height, width, _ = outputs[place].shape
                    outputs[place][:] = frame_HWC[:height, :width]


@dataclass(frozen=True)
class Tiles:
    """Each image in overlapping tiles, see `p2p.data.transforms.tiling`; those of several images share batches.

    With stats="image" instance norms go by the whole image, see `p2p.pipelines.image_stats`: an image at a time, twice.

    Beside the frames it takes the memory of a batch, and of a row of tiles of each image that the batch is about.
    """

    tile: Size
    stride: int
    stats: Literal["tile", "image"] = "tile"

    def translate(
        self, frames: Sequence[Frame], outputs: Sequence[Frame], generate: Generate, *, batch_size: int
    ) -> None:
        """See `AnySize`."""
        if self.stats == "tile":
            self._translate(frames, outputs, generate, batch_size)
            return
        for frame_HWC, output_HWC in zip(frames, outputs, strict=True):
            stats = ImageStats()
            with stats:
                for _ in range(2):
                    self._translate([frame_HWC], [output_HWC], stats.of(generate), batch_size)
                    stats.use()

    def _translate(
        self, frames: Sequence[Frame], outputs: Sequence[Frame], generate: Generate, batch_size: int
    ) -> None:
        axes = [grid(frame_HWC.shape[:2], self.tile, self.stride) for frame_HWC in frames]
        canvases: dict[int, Canvas] = {}
        places = (
            (image, row, column)
            for image, (rows, columns) in enumerate(axes)
            for row in range(len(rows.starts))
            for column in range(len(columns.starts))
        )
        for some in batches(places, batch_size):
            tiles = generate(stacked([self._cut(frames[image], *axes[image], *at) for image, *at in some]))
            for (image, row, column), tile_HWC in zip(some, tiles, strict=True):
                if image not in canvases:
                    canvases[image] = Canvas(*axes[image], outputs[image], tile_HWC)
                canvases[image].add(row, column, tile_HWC)
                if (row, column) == (len(axes[image][0].starts) - 1, len(axes[image][1].starts) - 1):
                    canvases.pop(image).finish()

    def _cut(self, frame_HWC: Frame, rows: Axis, columns: Axis, row: int, column: int) -> np.ndarray:
        top, left = rows.starts[row], columns.starts[column]
        return pad(frame_HWC[top : top + rows.tile][:, left : left + columns.tile], *self.tile)


class Canvas:
    """An output that is filled by its tiles, row after row of them from left to right. Holds one row's sums.

    Args:
        rows, columns: where tiles lie.
        output_HWC: what is filled, on the host: uint8, or float32 of which tiles are, too.
        like_HWC: a tile, for its device.
    """

    def __init__(self, rows: Axis, columns: Axis, output_HWC: Frame, like_HWC: torch.Tensor):
        self._rows, self._columns, self._output_HWC = rows, columns, output_HWC
        self._down, self._across = (
            torch.from_numpy(axis.weights).to(like_HWC.device)[..., None] for axis in (rows, columns)
        )
        width = columns.starts[-1] + columns.tile
        dtype = torch.int32 if output_HWC.dtype == np.uint8 else torch.float32
        self._sums_HWC = torch.zeros(rows.tile, width, like_HWC.shape[2], dtype=dtype, device=like_HWC.device)
        self._row = 0

    def add(self, row: int, column: int, tile_HWC: torch.Tensor) -> None:
        """A tile, of the output's dtype."""
        if row > self._row:
            self._put(through := self._rows.starts[row] - self._rows.starts[self._row])
            below = self._sums_HWC[through:].clone()
            self._sums_HWC.zero_()[: len(below)] = below
            self._row = row
        left = self._columns.starts[column]
        weights = self._down[row][:, None] * self._across[column]
        self._sums_HWC[:, left : left + self._columns.tile] += tile_HWC.to(self._sums_HWC.dtype) * weights

    def finish(self) -> None:
        """After the last tile."""
        self._put(self._rows.tile)

    def _put(self, count: int) -> None:
        """So many rows of the sums are complete, and not needed any more."""
        height, width, _ = self._output_HWC.shape
        top = self._rows.starts[self._row]
        bottom = min(top + count, height)
        done = self._sums_HWC[: bottom - top, :width]
        if done.is_floating_point():
            self._output_HWC[top:bottom] = done.div_(1 << 2 * BITS).cpu().numpy()
        else:
            done.add_(1 << 2 * BITS - 1).bitwise_right_shift_(2 * BITS)
            self._output_HWC[top:bottom] = done.to(torch.uint8).cpu().numpy()


def stacked(frames: Sequence[np.ndarray]) -> torch.Tensor:
    """Frames of one size as `Stages.generate` takes them: uint8, or float32 in [-1, 1] where one of them is."""
    tensors = [torch.from_numpy(np.array(frame_HWC, order="C"))[None] for frame_HWC in frames]
    if any(tensor.is_floating_point() for tensor in tensors):
        tensors = [from_frames(tensor).permute(0, 2, 3, 1) for tensor in tensors]
    return torch.cat(tensors)


def batches(some: Sequence[T] | Iterator[T], batch_size: int) -> Iterator[list[T]]:
    """So many at a time."""
    rest = iter(some)
    while batch := list(islice(rest, batch_size)):
        yield batch
