"""The fastest encoder and decoder of each format on a CPU, and Pillow for what they cannot do.

JPEG goes through simplejpeg, a thin binding of libjpeg-turbo: twice as fast as Pillow on the same library. It decodes
to the same pixels. It encodes to the same from quality 96 on; below, libjpeg-turbo's interface of this kind always
takes the fast DCT, whatever `fastdct` says (simplejpeg 1.9).

PNG gets one filter for all rows, by NumPy, and the quickest deflate there is, isal's. Pillow tries five filters a row
and then zlib; on pictures of a generator that costs ten times as long for files of the same size. The format is W3C's
"Portable Network Graphics (PNG) Specification", third edition.
"""

from __future__ import annotations

import struct
import zlib
from typing import Literal

import numpy as np
import simplejpeg
from isal import isal_zlib

from p2p.codecs.jpeg import JPEG, turned
from p2p.codecs.pillow import LARGE, Format, Pillow, Subsampling

PNG = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 3: 2}  # grey, RGB (section 11.2.1)
NONE, UP = 0, 2  # filters: bytes as they are, or each less the one above it (section 9.2)


class Fast:
    """Files in and out: JPEG by libjpeg-turbo, PNG out by an Up filter and isal, all else by Pillow.

    Decodes to the same frames, and refuses with the same sentences, as `p2p.codecs.pillow`. PNG is as lossless and of
    Pillow's size. JPEG is Pillow's from quality 96 on; below, libjpeg-turbo takes a faster DCT, which costs 1 dB at 95
    and next to nothing at 75, and saves no time to speak of.

    Args:
        format: "png" (lossless), "jpg", "webp", or "npy", an array for any number of channels.
        quality: of JPEG and WebP, 1 to 100.
        subsampling: of JPEG's colour: 444, at every pixel; 422, half as wide; 420, half as wide and half as high, which
            takes half the time to encode and blurs edges between colours.
        png_level: 1, or 0: not compressed, in a fifth of the time, for files up to twice as large.
        lossless: of WebP.
    """

    def __init__(
        self,
        *,
        format: Format = "png",
        quality: int = 96,
        subsampling: Subsampling = 444,
        png_level: Literal[0, 1] = 1,
        lossless: bool = False,
    ):
        if png_level not in (0, 1):
            raise ValueError(f"codec.png_level={png_level} is out of range: use 0 or 1, or codec=pillow for 2 to 9")
        self._pillow = Pillow(
            format=format, quality=quality, subsampling=subsampling, png_level=png_level, lossless=lossless
        )
        self._quality, self._subsampling, self._png_level = quality, subsampling, png_level
        self.suffix = self._pillow.suffix

    def decode(self, data: bytes, *, channels: int = 3) -> np.ndarray:
        """See `p2p.codecs.pillow.decode`."""
        frame_HWC = decode_jpeg(data, channels=channels)
        return self._pillow.decode(data, channels=channels) if frame_HWC is None else frame_HWC

    def check_channels(self, channels: int) -> None:
        """Raise a ValueError if the format has no images of so many channels."""
        self._pillow.check_channels(channels)

    def encode(self, frame_HWC: np.ndarray) -> bytes:
        """uint8 (H, W, 1 or 3), as npy (H, W, C) -> the bytes of a file.

        Raises:
            ValueError: the format has no images of so many channels.
        """
        if frame_HWC.shape[2] in (1, 3):
            if self.suffix == ".png":
                return encode_png(frame_HWC, level=self._png_level)
            if self.suffix == ".jpg":
                return encode_jpeg(frame_HWC, quality=self._quality, subsampling=self._subsampling)
        return self._pillow.encode(frame_HWC)


def decode_jpeg(data: bytes, *, channels: int) -> np.ndarray | None:
    """The bytes of a JPEG file -> uint8 (H, W, channels) in [0, 255], the pixels that Pillow has.

    None where Pillow must do it: no JPEG, CMYK, colour to be read as grey, turned by EXIF, too large or damaged.

    Args:
        data: a whole file.
        channels: 3 (RGB) or 1 (grey).
    """
    wanted = colours(data, channels=channels)
    if wanted is None:
        return None
    try:
        frame_HWC = simplejpeg.decode_jpeg(data, wanted, fastdct=False, fastupsample=False, strict=True)
    except ValueError:
        return None
    return np.repeat(frame_HWC, channels, axis=2) if frame_HWC.shape[2] < channels else frame_HWC


def colours(data: bytes, *, channels: int) -> Literal["Gray", "RGB"] | None:
    """What to decode a JPEG file to, by its header; None where only Pillow does it right: see `decode_jpeg`."""
    if channels not in (1, 3) or not data.startswith(JPEG):
        return None
    try:
        height, width, stored, _ = simplejpeg.decode_jpeg_header(data, strict=True)
    except ValueError:
        return None
    if stored in ("CMYK", "YCCK") or (channels == 1 and stored != "Gray"):  # Pillow's grey is not JPEG's luma
        return None
    if height * width > LARGE or turned(data):
        return None
    return "Gray" if stored == "Gray" else "RGB"


def encode_jpeg(frame_HWC: np.ndarray, *, quality: int, subsampling: Subsampling = 444) -> bytes:
    """uint8 (H, W, 1 or 3) in [0, 255] -> the bytes of a JPEG file, grey or colour.

    Args:
        quality: 1 to 100; at 96 and more the DCT is the accurate one.
        subsampling: of colour, see `Fast`.
    """
    wanted, stored = ("GRAY", "Gray") if frame_HWC.shape[2] == 1 else ("RGB", str(subsampling))
    frame_HWC = np.ascontiguousarray(frame_HWC)  # a view with gaps is refused
    return simplejpeg.encode_jpeg(frame_HWC, quality, wanted, stored, fastdct=False)


def encode_png(frame_HWC: np.ndarray, *, level: Literal[0, 1] = 1) -> bytes:
    """uint8 (H, W, 1 or 3) in [0, 255] -> the bytes of a PNG file, grey or RGB, lossless; level 0: not compressed."""
    height, width, channels = frame_HWC.shape
    assert frame_HWC.dtype == np.uint8 and channels in COLOUR_TYPES and height and width
    rows = frame_HWC.reshape(height, width * channels)
    lines = np.empty((height, width * channels + 1), np.uint8)
    if level:
        lines[:, 0], lines[0, 1:] = UP, rows[0]
        np.subtract(rows[1:], rows[:-1], out=lines[1:, 1:])  # modulo 256, as the format has it
        pixels = isal_zlib.compress(lines, 1)
    else:
        lines[:, 0], lines[:, 1:] = NONE, rows
        pixels = zlib.compress(lines.data, 0)  # isal's 0 compresses, too
    # 8 bits a channel, colour type; deflate, adaptive filters, not interlaced: 0 each
    header = struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")
    return b"".join((PNG, *(part for kind, data in chunks for part in _chunk(kind, data))))


def _chunk(kind: bytes, data: bytes) -> tuple[bytes, ...]:
    checksum = isal_zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)), kind, data, struct.pack(">I", checksum)
