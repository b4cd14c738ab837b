"""16 bits a channel, against Pillow, which has grey alone, and a decoder that goes byte by byte."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from p2p.codecs import png
from p2p.codecs.values import read_values

RNG = np.random.default_rng(0)


def numbers(channels, height=7, width=5):
    return RNG.integers(0, 65536, (height, width, channels), np.uint16)


def file_with(frame, filters):
    """A PNG whose rows have these filters, by the formulas of section 9.2, one byte after another."""
    height, width, channels = frame.shape
    rows, pixel = frame.astype(">u2").tobytes(), 2 * channels
    length, packed = width * pixel, bytearray()

    def at(row, place):
        return rows[row * length + place] if row >= 0 and place >= 0 else 0

    for row, kind in enumerate(filters):
        packed.append(kind)
        for place in range(length):
            a, b, c = at(row, place - pixel), at(row - 1, place), at(row - 1, place - pixel)
            c = c if place >= pixel else 0
            p = a + b - c
            nearest = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            guess = (0, a, b, (a + b) // 2, nearest)[kind]
            packed.append((at(row, place) - guess) % 256)
    colour = {2: 4, 3: 2, 4: 6}[channels]
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)),
        *((b"IDAT", part) for part in (zlib.compress(packed)[:30], zlib.compress(packed)[30:])),
        (b"IEND", b""),
    ]
    body = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_every_filter_is_undone(channels):
    frame = numbers(channels)
    data = file_with(frame, [4, 0, 1, 2, 3, 4, 1])
    assert png.is_deep_colour(data)
    assert (png.decode_deep(data) == frame).all()
    Image.open(io.BytesIO(data)).verify()  # it is a file that others read


@pytest.mark.parametrize("level", [0, 1])
def test_16_bits_are_written_as_pillow_reads_them(level):
    frame = numbers(1)
    assert (np.asarray(Image.open(io.BytesIO(png.encode_png(frame, level=level)))) == frame[..., 0]).all()
    for channels, mode in ((2, "LA"), (3, "RGB"), (4, "RGBA")):
        data = png.encode_png(numbers(channels), level=level)
        image = Image.open(io.BytesIO(data)).convert(mode)  # of 16 bits in colour Pillow has the upper 8
        assert (np.asarray(image) == png.decode_deep(data) >> 8).all()


def test_damage_is_said():
    data = bytearray(png.encode_png(numbers(3)))
    data[-20] ^= 1
    for broken in (bytes(data), bytes(data[:60])):
        with pytest.raises(ValueError, match=r"^it is damaged: some of its pixels are missing$"):
            png.decode_deep(broken)
    for length in range(60):
        with pytest.raises(ValueError, match="it is "):
            read_values(bytes(data[:length]), channels=3)
