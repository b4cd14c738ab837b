"""The fastest encoder and decoder of each format on a CPU, and Pillow for what they cannot do.

JPEG goes through simplejpeg, a thin binding of libjpeg-turbo: twice as fast as Pillow on the same library. It decodes
to the same pixels. It encodes to the same from quality 96 on; below, libjpeg-turbo's interface of this kind always
takes the fast DCT, whatever `fastdct` says (simplejpeg 1.9).

PNG gets one filter for all rows, by NumPy, and the quickest deflate there is, isal's: `p2p.codecs.png`. Pillow tries
five filters a row and then zlib; on pictures of a generator that costs ten times as long for files of the same size.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import simplejpeg

from p2p.codecs.depth import Bits
from p2p.codecs.jpeg import JPEG, turned
from p2p.codecs.pillow import LARGE, Format, Pillow, Subsampling
from p2p.codecs.png import COLOUR_TYPES, encode_png


class Fast:
    """Files in and out: JPEG by libjpeg-turbo, PNG out by an Up filter and isal, all else by Pillow.

    Decodes to the same frames, and refuses with the same sentences, as `p2p.codecs.pillow`. PNG is as lossless and of
    Pillow's size. JPEG is Pillow's from quality 96 on; below, libjpeg-turbo takes a faster DCT, which costs 1 dB at 95
    and next to nothing at 75, and saves no time to speak of.

    Args:
        format, bits: see `p2p.codecs.pillow.Pillow`.
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
        bits: Bits | None = None,
    ):
        if png_level not in (0, 1):
            raise ValueError(f"codec.png_level={png_level} is out of range: use 0 or 1, or codec=pillow for 2 to 9")
        self._pillow = Pillow(
            format=format, quality=quality, subsampling=subsampling, png_level=png_level, lossless=lossless, bits=bits
        )
        self._quality, self._subsampling, self._png_level = quality, subsampling, png_level
        self.suffix, self.bits, self.keeps_alpha = self._pillow.suffix, self._pillow.bits, self._pillow.keeps_alpha

    def decode(self, data: bytes, *, channels: int = 3) -> np.ndarray:
        """See `p2p.codecs.pillow.decode`."""
        frame_HWC = decode_jpeg(data, channels=channels)
        return self._pillow.decode(data, channels=channels) if frame_HWC is None else frame_HWC

    def check_channels(self, channels: int) -> None:
        """Raise a ValueError if the format has no images of so many channels."""
        self._pillow.check_channels(channels)

    def encode(self, frame_HWC: np.ndarray, *, alpha: bool = False) -> bytes:
        """See `p2p.codecs.pillow.Pillow.encode`."""
        if self.suffix == ".png" and frame_HWC.shape[2] in COLOUR_TYPES:
            return encode_png(frame_HWC, level=self._png_level)
        if self.suffix == ".jpg" and frame_HWC.shape[2] in (1, 3):
            return encode_jpeg(frame_HWC, quality=self._quality, subsampling=self._subsampling)
        return self._pillow.encode(frame_HWC, alpha=alpha)


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
