"""The numbers that a file holds, as they are: 12 bits in 16, floats of any range, labels, and how opaque it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from p2p.codecs import png, tiff, tiff_pixels
from p2p.codecs.pillow import (
    FORMATS,
    MODES,
    NUMPY,
    check_channels,
    frame_of_image,
    is_deep,
    load_array,
    open_image,
    sentences,
    upright,
)
from p2p.system.memory import check_room


def read_values(data: bytes, *, channels: int, background: str | None = None) -> np.ndarray:
    """The bytes of a file -> its numbers, (H, W, channels), in its own dtype.

    8, 16 and 32 bits and floats, of .npy files, TIFF and PNG, also in colour. Grey is three equal channels where 3 are
    asked for; colour of 8 bits becomes grey where 1 is; else a file must have the channels that are asked for.

    Args:
        data: a whole file, of which the first page is taken.
        channels: any number.
        background: of transparent images of 8 bits, see `p2p.codecs.pillow.decode`. Other alpha is left out.

    Raises:
        ValueError: it cannot be read as it is, and why, as half a sentence.
    """
    frame_HWC = _numbers(data, channels, background)
    if frame_HWC.shape[2] == 1 < channels == 3:
        return np.repeat(frame_HWC, 3, axis=2)
    check_channels(frame_HWC, channels)
    return frame_HWC


def read_labels(data: bytes) -> np.ndarray:
    """The bytes of a file -> a number for each pixel, (H, W, C): its grey values or the numbers of its palette.

    Raises:
        ValueError: it has colours, or cannot be read.
    """
    if data.startswith(NUMPY):
        return load_array(data)
    if tiff.is_tiff(data) and (found := tiff_pixels.decode(data)) is not None:
        return found[0]
    return labels_of_image(open_image(data))


def labels_of_image(image: Image.Image) -> np.ndarray:
    """What Pillow has opened or made -> its grey values or the numbers of its palette, (H, W, 1).

    Raises:
        ValueError: it has colours.
    """
    if image.mode not in ("1", "L", "P") and not is_deep(image):
        raise ValueError(f"it has colours ({image.mode}), and labels are one number a pixel: save grey or a palette")
    with sentences():
        return np.asarray(upright(image))[..., None]


def check_finite(values_HWC: np.ndarray) -> None:
    """Raise a ValueError if a number is NaN or infinite."""
    if values_HWC.dtype.kind == "f" and not np.isfinite(values_HWC).all():
        raise ValueError("it holds NaN or infinity: replace them by numbers")


def check_labels(values_HWC: np.ndarray) -> None:
    """Raise a ValueError if they are not labels: whole numbers from 0 on, one a pixel."""
    if values_HWC.shape[2] != 1:
        raise ValueError(f"it has {values_HWC.shape[2]} channels, and labels are one number a pixel")
    if values_HWC.dtype.kind == "f" and (values_HWC != np.floor(values_HWC)).any():  # also NaN
        raise ValueError("it holds fractions, and labels are whole numbers")
    low, high = values_HWC.min(), values_HWC.max()
    if low < 0 or high >= 1 << 31:
        raise ValueError(f"it holds {low} to {high}, and labels are 0 or more")


def read_alpha(data: bytes) -> np.ndarray | None:
    """The bytes of a file -> how opaque each pixel is, uint8 (H, W, 1), 0: not at all; None where it does not say.

    Raises:
        ValueError: it cannot be decoded.
    """
    if data.startswith(NUMPY):
        return None
    image = open_image(data)
    if is_deep(image) or not image.has_transparency_data:
        return None
    with sentences():
        return np.asarray(upright(image).convert("RGBA"))[..., 3:]


def is_transparent(path: Path) -> bool:
    """Whether an image has alpha, by its header; not if that cannot be read."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return not is_deep(image) and image.has_transparency_data
    except Exception:  # of damage; whoever reads all of it says so
        return False


def _numbers(data: bytes, channels: int, background: str | None) -> np.ndarray:
    if data.startswith(NUMPY):
        return load_array(data)
    if png.is_deep_colour(data):
        width, height, *_ = png.header(data)
        check_room(4 * 8 * height * width, what=f"it is {width}x{height} pixels")
        frame_HWC = png.decode_deep(data)
        return frame_HWC[..., :-1] if frame_HWC.shape[2] in (2, 4) else frame_HWC
    if tiff.is_tiff(data) and (found := tiff_pixels.decode(data)) is not None:
        frame_HWC, alpha = found
        if frame_HWC.dtype != np.uint8:
            return frame_HWC[..., :-1] if alpha else frame_HWC
        if not alpha and frame_HWC.shape[2] in (1, channels):
            return frame_HWC
    image = open_image(data)
    if is_deep(image):
        with sentences():
            return np.asarray(upright(image))[..., None]
    _check_all_bits(image)
    if channels not in MODES:
        raise ValueError(f"it is an image of {image.mode}, and {channels} channels are asked for: use TIFF or .npy")
    return frame_of_image(image, channels=channels, background=background)


def _check_all_bits(image: Image.Image) -> None:
    """Raise a ValueError if a TIFF has more bits than the 8 of which Pillow makes its colours."""
    if image.format == "TIFF" and max(image.tag_v2.get(tiff.BITS, (8,))) > 8:  # type: ignore[attr-defined]
        raise ValueError(
            "it has more than 8 bits a channel, and a compression or layout that p2p reads only with 8 bits:"
            " save it without compression"
        )
