"""JPEG files through simplejpeg, a thin binding of libjpeg-turbo: twice as fast as Pillow on the same library.

It decodes to the same pixels as Pillow. It encodes to the same from quality 96 on; below, libjpeg-turbo's interface of
this kind always takes the fast DCT, whatever `fastdct` says (simplejpeg 1.9).
"""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from PIL import Image

from p2p.codecs.pillow import LARGE, ORIENTATION

try:
    import simplejpeg
except ImportError:  # `p2p.codecs.fast` says so, and leaves JPEG to Pillow
    simplejpeg = None

START = b"\xff\xd8\xff"  # the first bytes of a JPEG file
TURNING = (b"Exif\0\0", b"tiff:Orientation")  # where a file can say that it is to be turned


def decode(data: bytes, *, channels: int) -> np.ndarray | None:
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
    """What to decode a file to, by its header; None where only Pillow does it right: see `decode`."""
    if simplejpeg is None or channels not in (1, 3) or not data.startswith(START):
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


def encode(frame_HWC: np.ndarray, *, quality: int) -> bytes:
    """uint8 (H, W, 1 or 3) in [0, 255] -> the bytes of a JPEG file, grey or 4:4:4.

    Args:
        quality: 1 to 100; at 96 and more the DCT is the accurate one.
    """
    wanted, subsampling = ("GRAY", "Gray") if frame_HWC.shape[2] == 1 else ("RGB", "444")
    frame_HWC = np.ascontiguousarray(frame_HWC)  # a view with gaps is refused
    return simplejpeg.encode_jpeg(frame_HWC, quality, wanted, subsampling, fastdct=False)


def turned(data: bytes) -> bool:
    """Whether an EXIF or XMP entry says that the image is to be turned or mirrored."""
    if not any(mark in data for mark in TURNING):  # searched in a hundredth of the time that decoding takes
        return False
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.getexif().get(ORIENTATION, 1) != 1
    except Exception:  # Pillow raises whatever it comes upon in a broken EXIF; it then reads the image itself
        return True
