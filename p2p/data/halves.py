"""Decide by the shapes of images whether they are A|B pairs, side by side in one image."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from statistics import median_low

import numpy as np
from PIL import Image

from p2p.codecs.pillow import FORMATS, orientation

SAMPLE = 2_000  # images whose headers are read before any work, in 0.2 s; of the others, shapes are seen in use
LEAST = 0.95  # width over height of a half: below, the whole is more likely a single image, such as a photo of 16:9
SAME = 0.1  # by which a half's width over height may differ from the others'
HINT = "add data.layout=side_by_side if its two halves are a pair"


def shape_of_halves(paths: list[str], folder: Path) -> float | None:
    """Width over height of the median image's halves, by the headers of up to SAMPLE of them, evenly spread.

    None if no header can be read.

    Raises:
        ValueError: they look like single images, or one is of another shape.
    """
    sizes = {path: size for path in paths[:: -(-len(paths) // SAMPLE)] if (size := size_of(path))}
    if not sizes:
        return None
    shape = median_low(width / 2 / height for width, height in sizes.values())
    if shape < LEAST:
        path, (width, height) = next((path, size) for path, size in sizes.items() if size[0] / 2 / size[1] < LEAST)
        raise ValueError(
            f"{path} is {width} pixels wide and {height} high, which is too narrow for an A|B image: put inputs and"
            f" targets into two folders, {folder / 'A'} and {folder / 'B'}, under equal names, or {HINT}"
        )
    for path, (width, height) in sizes.items():
        check_half(path, width, height, shape)
    return shape


def check_half(path: Path | str, width: int, height: int, shape: float | None) -> None:
    """Check a whole A|B image.

    Args:
        path: for the message.
        width, height: in pixels.
        shape: width over height that a half should have; None: any.

    Raises:
        ValueError: it cannot be halved, or not into such halves.
    """
    if not alike(width, height, shape):
        raise ValueError(
            f"{path} is {width} pixels wide and {height} high, of another shape than the other A|B images, whose halves"
            f" are {shape:.2f} times as wide as high: take it out, or {HINT}"
        )
    if width % 2:
        raise ValueError(f"{path} is {width} pixels wide: an A|B pair is two halves of equal width")


def alike(width: int, height: int, shape: float | None) -> bool:
    """Whether the halves of a whole image have that shape, roughly; None: any will do."""
    found = width / 2 / height
    return shape is None or (found >= LEAST and abs(found / shape - 1) <= SAME)


def size_of(path: Path | str | BytesIO) -> tuple[int, int] | None:
    """Width and height of an image, upright, by its header; None if that cannot be read.

    Args:
        path: of a file, or its bytes.
    """
    try:
        if str(path).lower().endswith(".npy"):
            height, width = np.load(path, mmap_mode="r", allow_pickle=False).shape[:2]
        else:
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                # Asked for its EXIF, an image that has none may be decoded whole.
                says = image.format == "TIFF" or "exif" in image.info or "xmp" in image.info
                if says and (orientation(image) or 1) > 4:
                    width, height = height, width
        return (width, height) if width and height else None
    except Exception:  # of damage, readers raise whatever they come upon; whoever reads all of it will say so
        return None
