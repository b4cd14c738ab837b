"""The bytes of a request -> what the network takes, and an output -> the bytes of an answer."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from p2p.codecs.fast import Fast
from p2p.codecs.pillow import FORMATS, MODES, NUMPY, load_array, sentences
from p2p.serve.limits import Limits, Refused

if TYPE_CHECKING:
    from p2p import Translator

Size = Literal["model", "input", "tile"]
Fit = Literal["stretch", "pad"]
TileStats = Literal["tile", "image"]
Format = Literal["png", "jpg", "webp", "tiff", "npy"]
MEDIA = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "tiff": "image/tiff",
    "npy": "application/octet-stream",
}
DEPTHS = {  # npy holds any
    "png": ("uint8", "uint16"),
    "jpg": ("uint8",),
    "webp": ("uint8",),
    "tiff": ("uint8", "uint16", "float32"),
}


def prepared(translator: Translator, data: bytes, limits: Limits, *, size: Size, fit: Fit, name: str):
    """An image as `Translator.prepare` gives it. Its size is known, and refused, before it is decoded.

    Args:
        data: a whole file.
        name: what sentences call it, "the image" or "images[3]".

    Raises:
        Refused: it is no image, damaged, too large, or not for this model.
    """
    try:
        if not data:
            raise Refused(400, f"cannot translate {name}: there are no bytes")
        if data.startswith(NUMPY):
            array = array_in(data, name=name)
            check_pixels(array.shape[1], array.shape[0], limits, size=size, name=name)
            return translator.prepare(array, size=size, fit=fit, name=name)
        check_pixels(*size_of(data, name=name), limits, size=size, name=name)
        return translator.prepare(data, size=size, fit=fit, name=name)
    except ValueError as error:
        raise Refused(422, str(error)) from error
    except MemoryError as error:
        raise Refused(503, f"cannot translate {name}: there is not enough memory") from error


def size_of(data: bytes, *, name: str) -> tuple[int, int]:
    """Width and height of an image, by the beginning of its file.

    Raises:
        Refused: it is none.
    """
    try:
        with sentences(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.size
    except ValueError as error:
        raise Refused(415, f"cannot translate {name}: {error}") from error


def array_in(data: bytes, *, name: str) -> np.ndarray:
    """The array of an .npy file.

    Raises:
        Refused: it is no image, or damaged.
    """
    try:
        return load_array(data)
    except ValueError as error:
        raise Refused(422, f"cannot translate {name}: {error}") from error


def check_pixels(width: int, height: int, limits: Limits, *, size: Size, name: str) -> None:
    """Raise `Refused` if an image has too many."""
    most = limits.max_pixels_whole if size == "input" else limits.max_pixels
    if width * height > most:
        instead = ", or use size=tile" if size == "input" and width * height <= limits.max_pixels else ""
        raise Refused(
            413,
            f"{name} has {width}x{height} pixels, and this server takes {most:,} at most: send a smaller one{instead}",
        )


def encoded(output: Image.Image | np.ndarray, format: Format | None) -> tuple[bytes, str]:
    """An output, (H, W) or (H, W, C), as a file, and its media type.

    Args:
        format: None for npy where an array came, or where png cannot hold the output, and else png.

    Raises:
        Refused: that format cannot hold it.
    """
    array = np.asarray(output)
    frame_HWC = array.reshape(*array.shape[:2], -1)
    depth, channels = frame_HWC.dtype.name, frame_HWC.shape[2]
    if format is None:
        format = "png" if isinstance(output, Image.Image) and depth in DEPTHS["png"] else "npy"
    if depth not in DEPTHS.get(format, (depth,)) or (format not in ("tiff", "npy") and channels not in MODES):
        raise Refused(422, f"format={format} cannot hold an output of {channels} channels of {depth}: use format=npy")
    if format == "npy":
        file = io.BytesIO()
        np.save(file, array)
        return file.getvalue(), MEDIA[format]
    return Fast(format=format).encode(np.ascontiguousarray(frame_HWC)), MEDIA[format]
