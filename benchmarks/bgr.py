"""The codec of the peers: OpenCV, in its own order of channels (BGR).

If OpenCV is missing, simplejpeg writes JPEG files of the same bytes, and Pillow writes PNG.
"""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from PIL import Image

try:
    import cv2
except ImportError:
    cv2 = None

LIBRARY = f"OpenCV {cv2.__version__}" if cv2 else "simplejpeg, and Pillow for PNG: opencv-python-headless is missing"
QUALITY = 96  # with 4:4:4, as p2p.codecs.fast by default


def decode(data: bytes) -> np.ndarray:
    """A JPEG file -> uint8 (H, W, 3), BGR."""
    if cv2:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return simplejpeg.decode_jpeg(data, "BGR", fastdct=False, fastupsample=False)


def encode(frame_HWC: np.ndarray, *, format: str) -> bytes:
    """uint8 (H, W, 3), BGR -> a "jpg" or "png" file; PNG with what OpenCV does by default."""
    if cv2:
        options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        return cv2.imencode(f".{format}", frame_HWC, options if format == "jpg" else [])[1].tobytes()
    if format == "jpg":
        return simplejpeg.encode_jpeg(frame_HWC, QUALITY, "BGR", "444", fastdct=False)
    file = io.BytesIO()
    Image.fromarray(frame_HWC[..., ::-1]).save(file, "PNG", compress_level=1)
    return file.getvalue()


def use_one_thread() -> None:
    """In a process of many, which would otherwise start as many threads each as there are cores."""
    if cv2:
        cv2.setNumThreads(0)
