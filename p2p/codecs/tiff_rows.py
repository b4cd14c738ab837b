"""The rows of a TIFF page, a few at a time: an image may be larger than the memory.

What is not compressed, or by deflate, in strips or in tiles. Sections are those of Adobe's "TIFF Revision 6.0", 1992.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from p2p.codecs.tiff import (
    BITS,
    COMPRESSION,
    DAMAGE,
    EXTRA,
    FORMAT,
    HEIGHT,
    ORIENTATION,
    PHOTOMETRIC,
    PLANAR,
    PREDICTOR,
    ROWS,
    SAMPLES,
    STRIP_BYTES,
    STRIPS,
    TILE_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    TILES,
    WIDTH,
    Directory,
    directory_of,
    mapped,
)

NONE, DEFLATE, OLD_DEFLATE = 1, 8, 32946
GREY, RGB = 1, 2
NUMBERS = {1: "u", 2: "i", 3: "f"}  # of FORMAT, section 19
LARGE_TILE, LARGER = 1 << 26, 4  # bytes that any tile may have, or so many times those of the image
DAMAGED = "it is damaged: a part of its TIFF directory or of its pixels is missing"
BROKEN = (*DAMAGE, StopIteration, zlib.error)  # what it raises


class Layout(NamedTuple):
    """How the numbers of a page are laid out in its strips or tiles.

    Attributes:
        shape: (H, W, C).
        dtype: of the numbers, in the file's byte order.
        packed: compressed by deflate.
        differences: each number less the one to its left, modulo (section 14).
        planar: the channels come one after the other (`Rows` has no such).
        alpha: the last channel is one.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype
    packed: bool
    differences: bool
    planar: bool
    alpha: bool

    def pixels(self, part: bytes, height: int, width: int) -> np.ndarray:
        """The bytes of a strip or tile -> (height, width, C), in the machine's byte order."""
        channels = self.shape[2]
        count = height * width * channels
        if self.packed:
            part = zlib.decompressobj().decompress(part, count * self.dtype.itemsize)
        if len(part) < count * self.dtype.itemsize:
            raise KeyError(STRIPS)
        return self.undone(np.frombuffer(part, self.dtype, count).reshape(height, width, channels))

    def undone(self, frame_HWC: np.ndarray) -> np.ndarray:
        """Sums in the place of differences, in the machine's byte order."""
        native = self.dtype.newbyteorder("=")
        if self.differences:
            return np.cumsum(frame_HWC, axis=1, dtype=native)
        return frame_HWC.astype(native, copy=False)


def layout_of(directory: Directory) -> Layout | None:
    """That of a page; None of what others must read: palettes, other compressions, odd bits, turned images."""
    height, width, channels = directory.number(HEIGHT), directory.number(WIDTH), directory.number(SAMPLES, 1)
    bits, formats = set(directory.numbers(BITS, 1)), set(directory.numbers(FORMAT, 1))
    compression, photometric = directory.number(COMPRESSION, NONE), directory.number(PHOTOMETRIC)
    predictor = directory.number(PREDICTOR, 1)
    dtype = f"{directory.order}{NUMBERS.get(min(formats), '?')}{min(bits) // 8}"
    suits = (
        compression in (NONE, DEFLATE, OLD_DEFLATE)
        and photometric in (GREY, RGB)
        and len(bits) == len(formats) == 1
        and dtype[1:] in ("u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8")
        and (predictor == 1 or (predictor == 2 and dtype[1] != "f"))
        and directory.number(ORIENTATION, 1) == 1
        and height * width * channels
    )
    if not suits:
        return None
    return Layout(
        shape=(height, width, channels),
        dtype=np.dtype(dtype),
        packed=compression != NONE,
        differences=predictor == 2,
        planar=directory.number(PLANAR, 1) == 2,
        alpha=channels > 1 and directory.numbers(EXTRA, 0)[-1] in (1, 2),
    )


class Rows:
    """`rows[top:bottom]` reads these rows of a page, (bottom - top, W, C). It keeps them, and what was read with them.

    Rows from top to bottom are read once each, also where those of one call overlap those of the next.

    Args:
        directory: of the page; not needed any more afterwards.
        layout: of it, which is not planar.
        read: so many bytes of the file, from a place on.

    Attributes:
        shape: (H, W, C) of the page.
        layout: as given.

    Raises:
        ValueError: the file is damaged, when its rows are read.
    """

    def __init__(self, directory: Directory, layout: Layout, read: Callable[[int, int], bytes]):
        self.layout, self.shape, self._read_bytes = layout, layout.shape, read
        height, width, channels = layout.shape
        self._tile_width = directory.number(TILE_WIDTH) if TILES in directory.entries else None
        if self._tile_width is not None:
            tile = self._tile_width * directory.number(TILE_HEIGHT)
            if not 0 < tile <= max(LARGER * height * width, LARGE_TILE // (channels * layout.dtype.itemsize)):
                raise KeyError(TILE_WIDTH)  # by deflate, a tile of zeros takes a thousandth of its memory
        places, sizes = (STRIPS, STRIP_BYTES) if self._tile_width is None else (TILES, TILE_BYTES)
        self._parts = list(zip(directory.numbers(places), directory.numbers(sizes), strict=True))
        self._step = directory.number(TILE_HEIGHT) if self._tile_width else min(directory.number(ROWS, height), height)
        self._across = -(-width // (self._tile_width or width))  # parts beside each other
        if not self._step or len(self._parts) < self._across * -(-height // self._step):
            raise KeyError(places)
        self._top, self._kept = 0, np.empty((0, *self.shape[1:]), layout.dtype.newbyteorder("="))

    def __getitem__(self, rows: slice) -> np.ndarray:
        top, bottom, _ = rows.indices(self.shape[0])
        end = self._top + len(self._kept)
        try:
            if not self._top <= top < end:
                self._top, self._kept = self._read(top, bottom)
            elif bottom > end:
                _, more = self._read(end, bottom)
                self._top, self._kept = top, np.concatenate([self._kept[top - self._top :], more])
        except BROKEN as error:
            raise ValueError(DAMAGED) from error
        return self._kept[top - self._top : bottom - self._top]

    def _read(self, top: int, bottom: int) -> tuple[int, np.ndarray]:
        """These rows, and others of their strips or tiles where these cannot be had alone; and which is the first."""
        first, last = top // self._step, -(-bottom // self._step)
        bands = [self._band(part, top, bottom) for part in range(first, last)]
        alone = self._tile_width is None and not self.layout.packed
        return top if alone else first * self._step, bands[0] if len(bands) == 1 else np.concatenate(bands)

    def _band(self, number: int, top: int, bottom: int) -> np.ndarray:
        """Of a strip, or of a row of tiles."""
        height, width, channels = self.shape
        begin = number * self._step
        end = min(begin + self._step, height)
        if self._tile_width is not None:
            parts = self._parts[number * self._across : (number + 1) * self._across]
            tiles = [self.layout.pixels(self._bytes(*part), self._step, self._tile_width) for part in parts]
            return np.concatenate(tiles, axis=1)[: end - begin, :width]
        at, size = self._parts[number]
        if not self.layout.packed:
            row = width * channels * self.layout.dtype.itemsize
            begin, end = max(begin, top), min(end, bottom)
            at, size = at + (begin - number * self._step) * row, (end - begin) * row
        return self.layout.pixels(self._bytes(at, size), end - begin, width)

    def _bytes(self, at: int, size: int) -> bytes:
        part = self._read_bytes(at, size)
        if len(part) < size:
            raise KeyError(STRIPS)
        return part


@contextmanager
def opened(path: Path, page: int | None = None) -> Iterator[Rows | None]:
    """The rows of a file's page at a place, or of its first one; None of what is no TIFF, or others must read."""
    fd, rows = -1, None
    with suppress(OSError, ValueError, *BROKEN), mapped(path) as data:
        directory = directory_of(data, page)
        layout = layout_of(directory)
        if layout is not None and not layout.planar:
            # Its pixels are read and not mapped: a system counts mapped pages as the process's own memory.
            fd = os.open(path, os.O_RDONLY)
            rows = Rows(directory, layout, partial(_read, fd))
    try:
        yield rows
    finally:
        if fd >= 0:
            os.close(fd)


def _read(fd: int, at: int, size: int) -> bytes:
    """All of it, or what there is: a system reads 2 GB at a time."""
    parts = []
    while size and (part := os.pread(fd, size, at)):
        parts.append(part)
        at, size = at + len(part), size - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
