"""Which images go through the engine together: the same in every pipeline, on all devices. No torch in here."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from io import BytesIO
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from p2p.codecs import tiff
from p2p.data.halves import size_of as size_by_header
from p2p.data.pairs import Pair
from p2p.data.transforms.tiling import tiles_of
from p2p.deploy.manifest import Manifest
from p2p.deploy.sizes import Size, Sizes
from p2p.pipelines.files import Failure, Files
from p2p.pipelines.row_files import by_rows
from p2p.pipelines.slots import lay_out
from p2p.profiling.clock import Clock
from p2p.system.urls import is_url

GROUP = 4  # batches of tiles that the images of a group have together: the last batch alone is not full


class Groups(NamedTuple):
    """The images of a run, in the order in which they are translated.

    Attributes:
        pairs: those of a group beside each other.
        rows: of each a `p2p.pipelines.slots.ROW`: its size, and where it is in a slot.
        starts: the first image of each group.
        large: the first image of those that are at the end, each a group, for `p2p.pipelines.strips`.
    """

    pairs: list[Pair]
    rows: np.ndarray
    starts: list[int]
    large: int

    def whole(self) -> list[list[Pair]]:
        """The groups of images that are loaded as whole frames."""
        return [self.pairs[first:stop] for first, stop in pairwise([*self.starts_of_whole(), self.large])]

    def starts_of_whole(self) -> list[int]:
        """Where these begin."""
        return self.starts[: bisect_left(self.starts, self.large)]

    def by_rows(self) -> list[Pair]:
        """The large images."""
        return self.pairs[self.large :]


def plan(
    pairs: list[Pair],
    files: Files,
    manifest: Manifest,
    *,
    size: Literal["model", "input", "tile"],
    batch_size: int,
) -> Groups:
    """Decide it, at their own sizes by the headers of their files.

    Args:
        size: see `p2p.pipelines.stages.Stages`.
    """
    sizes: list[Size | None] = [None] * len(pairs)
    if size == "model":
        groups = [[*range(len(pairs))[first : first + batch_size]] for first in range(0, len(pairs), batch_size)]
        return _laid_out(pairs, sizes, groups, [])
    sizes = [size_of(pair, files) for pair in pairs]
    if size == "input":
        assert manifest.program.sizes is not None
        return _laid_out(pairs, sizes, of_one_size(sizes, manifest.program.sizes, batch_size), [])
    groups = of_few_tiles(sizes, *tiles_for(manifest), batch_size)
    large = {place for place, each in enumerate(sizes) if each and by_rows(pairs[place], each, files)}
    rest = [[place for place in group if place not in large] for group in groups]
    return _laid_out(pairs, sizes, [group for group in rest if group], sorted(large))


def _laid_out(pairs: list[Pair], sizes: list[Size | None], groups: list[list[int]], large: list[int]) -> Groups:
    every = [*groups, *([place] for place in large)]
    starts = [*accumulate((len(group) for group in every[:-1]), initial=0)]
    rows = lay_out([[sizes[place] for place in group] for group in every])
    ordered = [pairs[place] for group in every for place in group]
    return Groups(ordered, rows, starts, len(pairs) - len(large))


def of_one_size(sizes: Sequence[Size | None], taken: Sizes, batch_size: int) -> list[list[int]]:
    """The places of up to `batch_size` images of which the program, which takes such sizes, sees one size."""
    full: list[list[int]] = []
    filling: dict[Size | int, list[int]] = {}
    for place, size in enumerate(sizes):
        try:
            seen = None if size is None else taken.around(size)
        except ValueError:
            seen = None
        group = filling.setdefault(seen or place, [])  # one that will be refused is alone
        group.append(place)
        if len(group) == batch_size:
            full.append(filling.pop(seen or place))
    return [*full, *filling.values()]


def of_few_tiles(sizes: Sequence[Size | None], tile: Size, stride: int, batch_size: int) -> list[list[int]]:
    """The places of neighbours that have no more tiles together than `GROUP` batches, or of one image of any size."""
    groups: list[list[int]] = []
    held = 0
    for place, size in enumerate(sizes):
        tiles = 1 if size is None else tiles_of(size, tile, stride)
        if not groups or held + tiles > GROUP * batch_size:
            groups.append([])
            held = 0
        groups[-1].append(place)
        held += tiles
    return groups


def tiles_for(manifest: Manifest) -> tuple[Size, int]:
    """Height and width of a program's tiles, and the stride that they keep to."""
    _, height, width = manifest.input_shape
    return (height, width), manifest.stride or manifest.multiple or 1


def size_of(pair: Pair, files: Files) -> Size | None:
    """Height and width of an input, by its header, or if need be decoded; None where it cannot be read."""
    source = pair.input
    try:
        if source.page is not None:
            size = tiff.size_of(Path(source.path), source.page)
        elif source.member is None and not is_url(source.path):
            size = size_by_header(source.path)
        else:
            size = size_by_header(BytesIO(files.read(pair)))
        if size is None:
            return files.load(pair, Clock())[1]
    except Failure:  # which whoever loads it again will say
        return None
    width, height = size
    return height, width if source.half is None else width // 2
