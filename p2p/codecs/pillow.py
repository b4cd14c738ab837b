"""Decode and encode with Pillow: every format, one core, no GPU. What the faster codecs are compared with."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Format = Literal["png", "jpg", "webp"]
MODES = {1: "L", 3: "RGB"}


def decode(data: bytes, *, channels: int = 3) -> np.ndarray:
    """The bytes of an image file -> uint8 (H, W, channels) in [0, 255], turned upright as its EXIF says.

    Args:
        data: a whole file in any format that Pillow reads.
        channels: 3 for RGB, 1 for grey; the image is converted.

    Raises:
        ValueError: the bytes are no image, or only a part of one.
    """
    if channels not in MODES:
        raise ValueError(f"channels={channels} is not supported: use 1 (grey) or 3 (RGB)")
    try:
        image = Image.open(io.BytesIO(data))
        frame_HWC = np.asarray(ImageOps.exif_transpose(image).convert(MODES[channels]))
    except UnidentifiedImageError:
        raise ValueError("it is not an image") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # SyntaxError: a damaged PNG
        raise ValueError(f"it is damaged: {error}") from error
    return frame_HWC.reshape(*frame_HWC.shape[:2], channels)


class Pillow:
    """Files in and out.

    Args:
        format: "png" (lossless), "jpg" or "webp".
        quality: of JPEG and WebP, 1 to 100.
        png_level: zlib's effort, 0 to 9. 1 is 3 times as fast as Pillow's own 6, for files a tenth larger.
    """

    def __init__(self, *, format: Format = "png", quality: int = 95, png_level: int = 1):
        self.suffix = f".{format}"
        match format:
            case "png":
                self._options = {"format": "PNG", "compress_level": png_level}
            case "jpg":
                # 4:4:4: most encoders halve the chroma resolution unasked, which blurs flat colours.
                self._options = {"format": "JPEG", "quality": quality, "subsampling": "4:4:4"}
            case "webp":
                self._options = {"format": "WEBP", "quality": quality}
            case _:
                raise ValueError(f"codec.format={format} is not known: use png, jpg or webp")
        if not 1 <= quality <= 100:
            raise ValueError(f"codec.quality={quality} is out of range: use 1 to 100")

    def decode(self, data: bytes, *, channels: int = 3) -> np.ndarray:
        """See `decode`."""
        return decode(data, channels=channels)

    def encode(self, frame_HWC: np.ndarray) -> bytes:
        """uint8 (H, W, 1 or 3) -> the bytes of a file."""
        buffer = io.BytesIO()
        Image.fromarray(frame_HWC.squeeze(2) if frame_HWC.shape[2] == 1 else frame_HWC).save(buffer, **self._options)
        return buffer.getvalue()
