"""Small pictures that stand inside a page."""

from __future__ import annotations

import base64
import math

import numpy as np
from PIL import Image

from p2p.codecs.fast import encode_jpeg
from p2p.report.picture import as_picture

LARGEST = 512  # pixels of a side
PIXELS = 100_000_000  # of all in a page: 20 to 60 MB of JPEG in base64
BLOCK = 8  # pixels of JPEG's blocks: pictures that begin with one do not run into each other
QUALITY = 88


def longest_side(count: int) -> int:
    """Pixels of the longer side that `count` pictures of one page may have."""
    return min(LARGEST, math.isqrt(PIXELS // max(1, count)) // BLOCK * BLOCK)


def strip(frames: list[np.ndarray], *, longest: int) -> str:
    """uint8 frames (H, W, C) of one image beside each other, equally wide: JPEG in base64.

    They get the size of the last one, within `longest` pixels and up to whole blocks: the page stretches them back.
    """
    height, width = frames[-1].shape[:2]
    scale = min(1.0, longest / max(height, width))
    size = tuple(math.ceil(side * scale / BLOCK) * BLOCK for side in (width, height))
    pictures = [as_picture(frame).convert("RGB") for frame in frames]
    resized = [np.asarray(each.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)) for each in pictures]
    return base64.b64encode(encode_jpeg(np.concatenate(resized, axis=1), quality=QUALITY)).decode()
