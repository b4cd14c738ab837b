"""What the tools do to the pixels of one image. The operations are those of Tensorflow's pix2pix, tools/process.py."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageColor

from p2p.data.transforms.sizing import LARGEST, resize


def grey(frame_HWC: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) -> the same shape with its luma (ITU-R 601-2) in all three channels."""
    return np.asarray(Image.fromarray(frame_HWC).convert("L").convert("RGB"))


def blank(frame_HWC: np.ndarray, *, share: float, colour: str) -> np.ndarray:
    """uint8 (H, W, 3) -> a copy whose middle is a rectangle of one colour.

    Args:
        share: of its height and width, in (0, 1].
        colour: as `PIL.ImageColor` knows it.
    """
    height, width = frame_HWC.shape[:2]
    rows, columns = int(share * height), int(share * width)
    top, left = int(height / 2 - rows / 2), int(width / 2 - columns / 2)
    blanked = frame_HWC.copy()
    blanked[top : top + rows, left : left + columns] = ImageColor.getrgb(colour)[:3]
    return blanked


def fit(frame_HWC: np.ndarray, width: int, height: int) -> np.ndarray:
    """Crop the middle to the shape of width x height, then resize. The aspect ratio stays.

    Args:
        frame_HWC: uint8 (H, W, 1 or 3) or uint16 (H, W, 1), by Pillow's bicubic; or labels, int32 (H, W, 1), of which
            each is that of the nearest pixel.

    Returns:
        The same dtype and channels, (height, width, C).
    """
    rows, columns = frame_HWC.shape[:2]
    scale = min(columns / width, rows / height)
    rows_left, columns_left = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (rows - rows_left) // 2, (columns - columns_left) // 2
    return _resized(frame_HWC[top : top + rows_left, left : left + columns_left], width, height)


def contain(frame_HWC: np.ndarray, width: int, height: int, *, border: str | int) -> np.ndarray:
    """Resize to fit inside width x height, in the middle of borders. The aspect ratio and the whole image stay.

    Args:
        frame_HWC: see `fit`.
        border: see `pad`.
    """
    rows, columns = frame_HWC.shape[:2]
    scale = min(width / columns, height / rows)
    resized = _resized(frame_HWC, max(1, round(columns * scale)), max(1, round(rows * scale)))
    return pad(resized, width, height, border=border)


def pad(frame_HWC: np.ndarray, width: int, height: int, *, border: str | int) -> np.ndarray:
    """The image in the middle of width x height, within borders. No pixel changes.

    Args:
        frame_HWC: see `fit`.
        border: a colour as `PIL.ImageColor` knows it; of labels a label.

    Raises:
        ValueError: the image is larger.
    """
    rows, columns, channels = frame_HWC.shape
    if rows > height or columns > width:
        raise ValueError(f"it is {columns}x{rows} pixels, larger than {width}x{height}: use a larger --size, or resize")
    value: np.ndarray = np.asarray(border)
    if isinstance(border, str):
        value = np.asarray(ImageColor.getcolor(border, "RGB" if channels == 3 else "L"))
        value = value.astype(frame_HWC.dtype) * (257 if frame_HWC.dtype == np.uint16 else 1)  # white is 65535
    padded = np.empty((height, width, channels), frame_HWC.dtype)
    padded[:] = value
    top, left = (height - rows) // 2, (width - columns) // 2
    padded[top : top + rows, left : left + columns] = frame_HWC
    return padded


def check_size(text: str) -> tuple[int, int]:
    """ "256" or "512x256" -> width and height.

    Raises:
        ValueError: it is no size.
    """
    sides = text.split("x") if "x" in text else [text, text]
    if len(sides) != 2 or not all(side.isdecimal() and 1 <= int(side) <= LARGEST for side in sides):
        raise ValueError(f"--size={text} is not a size: use 256, or width x height as in 512x256, up to {LARGEST}")
    return int(sides[0]), int(sides[1])


def check_colour(name: str) -> str:
    """Raise a ValueError if Pillow does not know a colour; else return it."""
    try:
        ImageColor.getrgb(name)
    except ValueError:
        raise ValueError(f"--colour={name} is not a colour: use white, black, or another such as '#ff8000'") from None
    return name


def _resized(frame_HWC: np.ndarray, width: int, height: int) -> np.ndarray:
    resized = resize(np.ascontiguousarray(frame_HWC), height, width)
    if frame_HWC.dtype == np.uint16:
        resized = np.clip(np.rint(resized), 0, 65535)  # bicubic overshoots
    return resized.astype(frame_HWC.dtype, copy=False)
