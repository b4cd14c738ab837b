"""What `benchmarks.encoders` compares: by name, a function from a frame, uint8 (H, W, 3), to the bytes of a file.

p2p's own, and those of other libraries where they are installed.
"""

import io
import zlib
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import numpy as np
import simplejpeg
import torch
from isal import igzip_lib, isal_zlib
from PIL import Image
from torchvision.io import encode_jpeg as torchvision_jpeg

from p2p.codecs.fast import encode_jpeg
from p2p.codecs.pillow import decode
from p2p.codecs.png import encode_png

Encode = Callable[..., bytes]
OTHERS = ("imagecodecs", "opencv-python-headless", "pyvips", "pyjpegli", "deflate", "zlib-ng")


def lossy() -> dict[str, Encode]:
    """They also take `quality`, 1 to 100. The first is what codec=fast does."""
    found: dict[str, Encode] = {
        "simplejpeg 4:4:4": encode_jpeg,
        "simplejpeg 4:2:2": partial(encode_jpeg, subsampling=422),
        "simplejpeg 4:2:0": partial(encode_jpeg, subsampling=420),
        "simplejpeg 4:4:4, fast DCT": lambda frame, quality: simplejpeg.encode_jpeg(
            frame, quality, "RGB", "444", fastdct=True
        ),
        "Pillow 4:4:4": partial(by_pillow, subsampling="4:4:4"),
        "Pillow 4:4:4, Huffman tables optimized": partial(by_pillow, subsampling="4:4:4", optimize=True),
        "Pillow WebP, method 0": partial(by_pillow, format="WEBP", method=0),
        "torchvision 4:2:0": lambda frame, quality: torchvision_jpeg(
            torch.from_numpy(frame).permute(2, 0, 1), quality
        ).numpy(),
    }
    if find_spec("imagecodecs"):
        import imagecodecs

        found["imagecodecs 4:4:4"] = partial(imagecodecs_jpeg, optimize=False)
        found["imagecodecs 4:4:4, Huffman tables optimized"] = partial(imagecodecs_jpeg, optimize=True)
        found["imagecodecs JPEG XL, effort 1"] = lambda frame, quality: imagecodecs.jpegxl_encode(
            frame, distance=(100 - quality) / 10, effort=1, numthreads=1
        )
    if find_spec("pyjpegli"):
        import pyjpegli

        found["pyjpegli 4:2:0"] = lambda frame, quality: pyjpegli.encode(frame, *frame.shape[1::-1], quality)
    if find_spec("cv2"):
        import cv2

        cv2.setNumThreads(1)
        sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444, cv2.IMWRITE_JPEG_QUALITY]
        found["OpenCV 4:4:4"] = lambda frame, quality: cv2.imencode(".jpg", frame[..., ::-1], [*sampling, quality])[1]
    if find_spec("pyvips"):
        import pyvips

        found["vips 4:4:4"] = lambda frame, quality: pyvips.Image.new_from_array(frame).jpegsave_buffer(
            Q=quality, subsample_mode="off"
        )
    return found


def lossless() -> dict[str, Encode]:
    """The first is what codec=fast does. Those named after an Up filter only compress the pixels."""
    found: dict[str, Encode] = {
        "codec=fast: Up, isal 1": encode_png,
        "codec=fast, png_level=0": partial(encode_png, level=0),
        "Up, isal 0": lambda frame: isal_zlib.compress(filtered(frame), 0),
        "Up, isal 1": lambda frame: isal_zlib.compress(filtered(frame), 1),
        "Up, isal 1, window of 4 KB, more memory": lambda frame: igzip_lib.compress(
            filtered(frame), 1, igzip_lib.COMP_ZLIB, igzip_lib.MEM_LEVEL_EXTRA_LARGE, 12
        ),
        "Up, isal 2": lambda frame: isal_zlib.compress(filtered(frame), 2),
        "Up, isal 3": lambda frame: isal_zlib.compress(filtered(frame), 3),
        "Up, zlib 1": lambda frame: zlib.compress(filtered(frame).data, 1),
        "Pillow 1": partial(by_pillow, format="PNG", compress_level=1),
    }
    if find_spec("deflate"):
        import deflate

        found["Up, libdeflate 1"] = lambda frame: deflate.zlib_compress(filtered(frame), 1)
    if find_spec("zlib_ng"):
        from zlib_ng import zlib_ng

        found["Up, zlib-ng 1"] = lambda frame: zlib_ng.compress(filtered(frame), 1)
    if find_spec("imagecodecs"):
        import imagecodecs

        found["imagecodecs spng 1"] = lambda frame: imagecodecs.spng_encode(frame, level=1)
    if find_spec("cv2"):
        import cv2

        found["OpenCV 1"] = lambda frame: cv2.imencode(".png", frame[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    return found


def by_pillow(frame: np.ndarray, *, format: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format, **options)
    return buffer.getvalue()


def imagecodecs_jpeg(frame: np.ndarray, *, quality: int, optimize: bool) -> bytes:
    import imagecodecs

    return imagecodecs.jpeg8_encode(frame, quality, subsampling="444", optimize=optimize)


def filtered(frame: np.ndarray) -> np.ndarray:
    """What `encode_png` compresses, but for its first row."""
    rows = frame.reshape(len(frame), -1)
    lines = np.full((len(rows), rows.shape[1] + 1), 2, np.uint8)
    np.subtract(rows[1:], rows[:-1], out=lines[1:, 1:])
    return lines


def read_back(data: bytes) -> np.ndarray:
    """The frame in a file of any of these, by Pillow but for JPEG XL."""
    if data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        import imagecodecs

        return imagecodecs.jpegxl_decode(data)
    return decode(data)
