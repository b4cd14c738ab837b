"""PNG by NumPy: quick to encode, and 16 bits a channel, also in colour, of which Pillow reads and writes 8.

The format is W3C's "Portable Network Graphics (PNG) Specification", third edition, whose sections are named below.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Literal

import numpy as np
from isal import isal_zlib

PNG = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels: grey, grey and alpha, RGB, RGBA (section 11.2.1)
CHANNELS = {colour: channels for channels, colour in COLOUR_TYPES.items()}
NONE, SUB, UP, AVERAGE, PAETH = range(5)  # filters: bytes less what is left of them, above, ... (section 9.2)
HEADER = struct.Struct(">IIBBBBB")  # width, height, bits, colour type, and 0 for deflate, filters, not interlaced


def encode_png(frame_HWC: np.ndarray, *, level: Literal[0, 1] = 1) -> bytes:
    """uint8 or uint16 (H, W, 1 to 4): grey, grey and alpha, RGB, RGBA -> the bytes of a PNG file, lossless.

    With one filter for all rows, and the quickest deflate there is, isal's. level 0: not compressed.
    """
    height, width, channels = frame_HWC.shape
    assert frame_HWC.dtype in (np.uint8, np.uint16) and channels in COLOUR_TYPES and height and width
    bits = 8 * frame_HWC.dtype.itemsize
    if bits == 16:
        frame_HWC = np.ascontiguousarray(frame_HWC, ">u2").view(np.uint8)
    rows = frame_HWC.reshape(height, -1)
    lines = np.empty((height, rows.shape[1] + 1), np.uint8)
    if level:
        lines[:, 0], lines[0, 1:] = UP, rows[0]
        np.subtract(rows[1:], rows[:-1], out=lines[1:, 1:])  # modulo 256, as the format has it
        pixels = isal_zlib.compress(lines, 1)
    else:
        lines[:, 0], lines[:, 1:] = NONE, rows
        pixels = zlib.compress(lines.data, 0)  # isal's 0 compresses, too
    facts = HEADER.pack(width, height, bits, COLOUR_TYPES[channels], 0, 0, 0)
    chunks = (b"IHDR", facts), (b"IDAT", pixels), (b"IEND", b"")
    return b"".join((PNG, *(part for kind, data in chunks for part in _chunk(kind, data))))


def is_deep_colour(data: bytes) -> bool:
    """Whether a file is a PNG of 16 bits in more than one channel, with its whole header."""
    if not data.startswith(PNG) or len(data) < 16 + HEADER.size:
        return False
    return data[24:25] == b"\x10" and data[25:26] in (b"\2", b"\4", b"\6")


def header(data: bytes) -> tuple[int, ...]:
    """Of a whole file: width, height, bits, colour type, deflate, filters, interlaced."""
    return HEADER.unpack_from(data, 16)


def decode_deep(data: bytes) -> np.ndarray:
    """The bytes of a file that `is_deep_colour` -> uint16 (H, W, 2 to 4), the last of 2 and 4 channels alpha.

    Raises:
        ValueError: it is damaged, or interlaced.
    """
    width, height, _, colour, _, _, interlaced = header(data)
    if interlaced:
        raise ValueError("it is a PNG of 16 bits that is interlaced, which is not supported: save it without")
    pixel = 2 * CHANNELS[colour]
    inflate = zlib.decompressobj()
    try:
        packed = b"".join(chunk for kind, chunk in _chunks(data) if kind == b"IDAT")
        lines = inflate.decompress(packed, height * (1 + width * pixel))
        stored = np.frombuffer(lines, np.uint8).reshape(height, -1)
        if stored[:, 0].max() > PAETH:
            raise ValueError
        return _unfiltered(stored[:, 1:].reshape(height, width, pixel), stored[:, 0]).view(">u2").astype(np.uint16)
    except (ValueError, IndexError, struct.error, zlib.error):
        raise ValueError("it is damaged: some of its pixels are missing") from None


def _unfiltered(stored: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """uint8 (H, W, bytes of a pixel), by the filter of each row.

    A pixel depends on those to its left, above, and above left, so all that lie on one diagonal are done together.
    """
    height, width, _ = stored.shape
    if (filters == UP).all():  # as `encode_png` has it
        return np.cumsum(stored, axis=0, dtype=np.uint8)
    pixels = np.zeros((height + 1, width + 1, stored.shape[2]), np.int16)  # with a row above and a column to the left
    for diagonal in range(height + width - 1):
        rows = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        columns = diagonal - rows
        left, up, corner = pixels[rows + 1, columns], pixels[rows, columns + 1], pixels[rows, columns]
        to_left, to_up, to_corner = np.abs(up - corner), np.abs(left - corner), np.abs(left + up - 2 * corner)
        nearer = np.where((to_left <= to_up) & (to_left <= to_corner), left, np.where(to_up <= to_corner, up, corner))
        guesses = np.choose(filters[rows, None], [np.zeros_like(left), left, up, (left + up) // 2, nearer])
        pixels[rows + 1, columns + 1] = (stored[rows, columns] + guesses) & 255
    return np.ascontiguousarray(pixels[1:, 1:].astype(np.uint8))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(PNG)
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        chunk = data[at + 8 : at + 8 + length]
        if struct.unpack_from(">I", data, at + 8 + length)[0] != zlib.crc32(kind + chunk):
            raise ValueError
        yield kind, chunk
        at += 12 + length


def _chunk(kind: bytes, data: bytes) -> tuple[bytes, ...]:
    checksum = isal_zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)), kind, data, struct.pack(">I", checksum)
