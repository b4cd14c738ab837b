"""The numbers in a TIFF file of many channels, or of a kind that Pillow has no mode for, and a file of such numbers.

Pillow reads one channel of 16 bits or of floats, and of three channels of 16 bits the upper 8. What is not compressed,
or by deflate, as ImageJ and microscopes write it, is read here whatever it holds. Sections are those of Adobe's "TIFF
Revision 6.0", 1992.
"""

from __future__ import annotations

import os
import struct
import zlib

import numpy as np

from p2p.codecs.tiff import (
    BITS,
    COMPRESSION,
    EXTRA,
    FORMAT,
    HEIGHT,
    LONG,
    PHOTOMETRIC,
    PLANAR,
    ROWS,
    SAMPLES,
    SHORT,
    STRIP_BYTES,
    STRIPS,
    WHOLE,
    WIDTH,
    Directory,
    directory_of,
    head_of,
)
from p2p.codecs.tiff_rows import BROKEN, DAMAGED, GREY, NONE, NUMBERS, RGB, Layout, Rows, layout_of
from p2p.system.memory import check_room
from p2p.system.plural import counted


def decode(data: bytes) -> tuple[np.ndarray, bool] | None:
    """The first page's numbers, (H, W, C), in their own dtype, and whether the last channel is alpha.

    None of what others must read: see `p2p.codecs.tiff_rows.layout_of`.

    Raises:
        ValueError: it is damaged.
    """
    try:
        directory = directory_of(data)
        layout = layout_of(directory)
        if layout is None:
            return None
        height, width, channels = layout.shape
        size = height * width * channels * layout.dtype.itemsize
        check_room(size, what=f"it is {width}x{height} pixels of {counted(channels, 'channel')}")
        if layout.planar:
            return None if (planes := _planes(directory, layout)) is None else (planes, layout.alpha)
        rows = Rows(directory, layout, lambda at, size: data[at : at + size])
        return rows[:], layout.alpha
    except BROKEN as error:
        raise ValueError(DAMAGED) from error


def encode(frame_HWC: np.ndarray, *, alpha: bool = False) -> bytes:
    """A file of one page, not compressed, so that every reader takes it.

    Args:
        frame_HWC: uint8, uint16 or float32, (H, W, C).
        alpha: the last channel is one, not multiplied with the others.
    """
    pixels = np.ascontiguousarray(frame_HWC, frame_HWC.dtype.newbyteorder("<")).tobytes()
    return head(frame_HWC.shape, frame_HWC.dtype, alpha=alpha) + pixels + bytes(len(pixels) % 2)


def head(shape: tuple[int, ...], dtype: np.dtype, *, alpha: bool = False) -> bytes:
    """What comes before the pixels of such a file: row after row of them, little-endian, up to an even place."""
    height, width, channels = shape
    colours = RGB if channels - alpha == 3 else GREY
    extra = channels - (3 if colours == RGB else 1)
    kinds = {kind: number for number, kind in NUMBERS.items()}
    tags: dict[int, tuple[int, list[int]]] = {
        WIDTH: (LONG, [width]),
        HEIGHT: (LONG, [height]),
        BITS: (SHORT, [8 * dtype.itemsize] * channels),
        COMPRESSION: (SHORT, [NONE]),
        PHOTOMETRIC: (SHORT, [colours]),
        SAMPLES: (SHORT, [channels]),
        ROWS: (LONG, [height]),
        PLANAR: (SHORT, [1]),
        FORMAT: (SHORT, [kinds[dtype.kind]] * channels),
    }
    if extra:
        tags[EXTRA] = (SHORT, [2 if alpha else 0] * extra)
    raw = {tag: (type, len(n), struct.pack(f"<{len(n)}{WHOLE[type]}", *n)) for tag, (type, n) in tags.items()}
    return head_of("<", raw, {(STRIPS, STRIP_BYTES): [height * width * channels * dtype.itemsize]})


class RowsFile:
    """A file as `encode` makes it, of which rows are written when they are there: `file[top:bottom] = frame_HWC`.

    Args:
        fd: of an empty file.
        shape: (H, W, C) of the whole.
        dtype: uint8, uint16 or float32.

    Raises:
        OSError: the disk is full, say, when rows are written.
    """

    def __init__(self, fd: int, shape: tuple[int, int, int], dtype: np.dtype):
        self.shape, self.dtype, self._fd = shape, dtype, fd
        begin = head(shape, dtype)
        height, width, channels = shape
        self._at, self._row = len(begin), width * channels * dtype.itemsize
        os.truncate(fd, self._at + height * self._row + height * self._row % 2)
        self._write(begin, 0)

    def __setitem__(self, rows: slice, frame_HWC: np.ndarray) -> None:
        top, _, _ = rows.indices(self.shape[0])
        pixels = np.ascontiguousarray(frame_HWC, self.dtype.newbyteorder("<"))
        self._write(pixels.data.cast("B"), self._at + top * self._row)

    def _write(self, data: bytes | memoryview, at: int) -> None:
        with memoryview(data) as left:
            while left:
                done = os.pwrite(self._fd, left, at)
                left, at = left[done:], at + done


def _planes(directory: Directory, layout: Layout) -> np.ndarray | None:
    """(H, W, C) of channels that come one after the other, in strips."""
    if STRIPS not in directory.entries:
        return None
    height, width, channels = layout.shape
    count = height * width * channels
    numbers, size = bytearray(), count * layout.dtype.itemsize
    for at, length in zip(directory.numbers(STRIPS), directory.numbers(STRIP_BYTES), strict=True):
        if not (left := size - len(numbers)):
            break
        strip = directory.data[at : at + length]
        if len(strip) < length:
            raise KeyError(STRIPS)
        numbers += zlib.decompressobj().decompress(strip, left) if layout.packed else strip[:left]
    if len(numbers) < size:
        raise KeyError(STRIPS)
    return layout.undone(np.moveaxis(np.frombuffer(numbers, layout.dtype).reshape(channels, height, width), 0, 2))
