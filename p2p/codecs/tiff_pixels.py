"""The numbers in a TIFF file of many channels, or of a kind that Pillow has no mode for, and a file of such numbers.

Pillow reads one channel of 16 bits or of floats, and of three channels of 16 bits the upper 8. What is not compressed,
or by deflate, as ImageJ and microscopes write it, is read here whatever it holds. Sections are those of Adobe's "TIFF
Revision 6.0", 1992.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from p2p.codecs.tiff import (
    BITS,
    COMPRESSION,
    DAMAGE,
    EXTRA,
    FORMAT,
    HEIGHT,
    LONG,
    ORIENTATION,
    PHOTOMETRIC,
    PLANAR,
    PREDICTOR,
    ROWS,
    SAMPLES,
    SHORT,
    STRIP_BYTES,
    STRIPS,
    TILES,
    WHOLE,
    WIDTH,
    Directory,
    directories,
    file_of,
    parts_of,
)
from p2p.system.memory import check_room
from p2p.system.plural import counted

NONE, DEFLATE, OLD_DEFLATE = 1, 8, 32946
GREY, RGB = 1, 2
NUMBERS = {1: "u", 2: "i", 3: "f"}  # of FORMAT, section 19


def decode(data: bytes) -> tuple[np.ndarray, bool] | None:
    """The first page's numbers, (H, W, C), in their own dtype, and whether the last channel is alpha.

    None of what others must read: palettes, other compressions, tiles, bits that are no whole bytes, turned images.

    Raises:
        ValueError: it is damaged.
    """
    try:
        _, directory = next(directories(data))
        return _numbers(directory)
    except (*DAMAGE, StopIteration, zlib.error) as error:
        raise ValueError("it is damaged: a part of its TIFF directory or of its pixels is missing") from error


def encode(frame_HWC: np.ndarray, *, alpha: bool = False) -> bytes:
    """A file of one page, not compressed, so that every reader takes it.

    Args:
        frame_HWC: uint8, uint16 or float32, (H, W, C).
        alpha: the last channel is one, not multiplied with the others.
    """
    height, width, channels = frame_HWC.shape
    pixels = np.ascontiguousarray(frame_HWC, frame_HWC.dtype.newbyteorder("<")).tobytes()
    colours = RGB if channels - alpha == 3 else GREY
    extra = channels - (3 if colours == RGB else 1)
    kinds = {kind: number for number, kind in NUMBERS.items()}
    tags: dict[int, tuple[int, list[int]]] = {
        WIDTH: (LONG, [width]),
        HEIGHT: (LONG, [height]),
        BITS: (SHORT, [8 * frame_HWC.dtype.itemsize] * channels),
        COMPRESSION: (SHORT, [NONE]),
        PHOTOMETRIC: (SHORT, [colours]),
        SAMPLES: (SHORT, [channels]),
        ROWS: (LONG, [height]),
        PLANAR: (SHORT, [1]),
        FORMAT: (SHORT, [kinds[frame_HWC.dtype.kind]] * channels),
    }
    if extra:
        tags[EXTRA] = (SHORT, [2 if alpha else 0] * extra)
    raw = {tag: (type, len(n), struct.pack(f"<{len(n)}{WHOLE[type]}", *n)) for tag, (type, n) in tags.items()}
    return file_of("<", raw, {(STRIPS, STRIP_BYTES): [pixels]})


def _numbers(directory: Directory) -> tuple[np.ndarray, bool] | None:
    height, width, channels = directory.number(HEIGHT), directory.number(WIDTH), directory.number(SAMPLES, 1)
    bits, formats = set(directory.numbers(BITS, 1)), set(directory.numbers(FORMAT, 1))
    compression, photometric = directory.number(COMPRESSION, NONE), directory.number(PHOTOMETRIC)
    predictor, planar = directory.number(PREDICTOR, 1), directory.number(PLANAR, 1) == 2
    dtype = f"{directory.order}{NUMBERS.get(min(formats), '?')}{min(bits) // 8}"
    suits = (
        TILES not in directory.entries
        and compression in (NONE, DEFLATE, OLD_DEFLATE)
        and photometric in (GREY, RGB)
        and len(bits) == len(formats) == 1
        and dtype[1:] in ("u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8")
        and (predictor == 1 or (predictor == 2 and dtype[1] != "f"))
        and directory.number(ORIENTATION, 1) == 1
        and height * width * channels
    )
    if not suits:
        return None
    count = height * width * channels
    size = count * np.dtype(dtype).itemsize
    check_room(size, what=f"it is {width}x{height} pixels of {counted(channels, 'channel')}")
    strips = parts_of(directory, STRIPS, STRIP_BYTES)
    if compression != NONE:
        strips = [zlib.decompressobj().decompress(strip, size) for strip in strips]
    pixels = b"".join(strips)
    if len(pixels) < size:
        raise KeyError(STRIPS)
    numbers = np.frombuffer(pixels, dtype, count)
    if planar:
        frame_HWC = np.moveaxis(numbers.reshape(channels, height, width), 0, 2)
    else:
        frame_HWC = numbers.reshape(height, width, channels)
    if predictor == 2:  # section 14: each number less the one to its left, modulo
        frame_HWC = np.cumsum(frame_HWC, axis=1, dtype=frame_HWC.dtype.newbyteorder("="))
    frame_HWC = frame_HWC.astype(frame_HWC.dtype.newbyteorder("="), copy=False)
    alpha = channels > 1 and directory.numbers(EXTRA, 0)[-1] in (1, 2)
    return frame_HWC, alpha
