"""Bring a frame to the size that the networks take, with NumPy and Pillow alone.

No torch in here: a worker process that imports it starts in 3 seconds, one that does not in 0.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeVar, get_args

import numpy as np
from PIL import Image

from p2p.codecs.pillow import BYTES, LARGE
from p2p.image_size import ImageSize, as_setting, height_and_width, power_of_two_in, shown
from p2p.levels import WHITE, normalize
from p2p.system.memory import check_room

if TYPE_CHECKING:
    import torch

Frames = TypeVar("Frames", np.ndarray, "torch.Tensor")
Preprocess = Literal["resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "none"]

LABELS = np.dtype(np.int32)  # of a frame that holds labels, see `p2p.data.reading.Reading`
LARGEST = 16_384  # side of an image in training, in pixels


class Sizing:
    """The geometry of an evaluation; the table of `p2p.data.transforms.torchvision.Torchvision` has it by mode.

    Args:
        image_size: side of what the networks see, in pixels, or [height, width].
        preprocess: the mode.
        multiple: what the sides are made a multiple of by scale_width and none; None for the stride of the U-Net of
            this image_size: the largest power of two that divides its sides, at most 256. 4 suits a ResNet.

    Raises:
        ValueError: no such mode, or a number is out of range.
    """

    def __init__(self, *, image_size: ImageSize, preprocess: Preprocess, multiple: int | None = None):
        if preprocess not in get_args(Preprocess):
            known = ", ".join(get_args(Preprocess))
            raise ValueError(f"transform.preprocess={preprocess} is not known: use one of {known}")
        check_sides("image_size", image_size)
        multiple = min(256, power_of_two_in(image_size)) if multiple is None else multiple
        check_sides("multiple", multiple)
        self.size = as_setting(*height_and_width(image_size))
        self.crops = preprocess.endswith("crop")
        self._preprocess = preprocess
        self.multiple = multiple

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of what the networks see; of scale_width and none they only choose the scale."""
        return height_and_width(self.size)

    def __call__(self, frame_HWC: np.ndarray) -> np.ndarray:
        """A frame -> (H, W, C) as the networks see it: uint8 in [0, 255], of higher depth float32 in [-1, 1].

        Args:
            frame_HWC: uint8 in [0, 255], uint16 in [0, 65535] or float32 in [0, 1]; any number of channels. uint8
                with 1 or 3 is resized in 8 bits, as in pytorch-CycleGAN-and-pix2pix, all else in float32. int32 are
                labels, which stay what they are.

        Raises:
            ValueError: it is smaller than the crop.
        """
        height, width, _ = frame_HWC.shape
        height, width = self.scaled(height, width, self.size)
        sized_HWC = resize(frame_HWC, height, width)
        if self.crops:
            self.check_crop(height, width)
            sized_HWC = self.crop(sized_HWC[None])[0]
        return in_levels(sized_HWC, frame_HWC.dtype)

    def scaled(self, height: int, width: int, size: ImageSize) -> tuple[int, int]:
        """Height and width that a frame is resized to; `size` is what the mode calls load_size or image_size.

        Raises:
            ValueError: that takes more memory than is free, as of a line of pixels that is to be much wider.
        """
        height, width = self._scaled(height, width, size)
        if height * width > LARGE:
            check_room(height * width * BYTES, what=f"it comes out as {width}x{height} pixels")
        return height, width

    def _scaled(self, height: int, width: int, size: ImageSize) -> tuple[int, int]:
        rows, columns = height_and_width(size)
        scaled = max(columns * height // width, self.sides[0])
        match self._preprocess:
            case "resize_and_crop":
                return rows, columns
            case "scale_width_and_crop":
                return scaled, columns
            case "scale_width":
                return self._rounded(scaled), self._rounded(columns)
            case "none":
                return self._rounded(height), self._rounded(width)
        return height, width

    def cropped(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that remain of a frame of this size."""
        return self.sides if self.crops else (height, width)

    def crop(self, frames_NHWC: Frames) -> Frames:
        """The middle of frames of one size, NumPy's or torch's, as a view; all of them where the mode does not crop."""
        height, width = frames_NHWC.shape[1:3]
        rows, columns = self.cropped(height, width)
        top, left = (height - rows) // 2, (width - columns) // 2
        return frames_NHWC[:, top : top + rows, left : left + columns]

    def holds_crop(self, height: int, width: int) -> bool:
        """Whether a frame of this size is as large as the crop, where the mode crops."""
        return not self.crops or (height >= self.sides[0] and width >= self.sides[1])

    def check_crop(self, height: int, width: int) -> None:
        """Raise a ValueError if a frame of this size is smaller than the crop."""
        if not self.holds_crop(height, width):
            rows, columns = self.sides
            raise ValueError(
                f"it is {width}x{height} pixels, smaller than the crop of {columns}x{rows}: use a larger"
                " image, a smaller image_size or transform.preprocess=resize_and_crop"
            )

    def _rounded(self, side: int) -> int:
        return max(1, round(side / self.multiple)) * self.multiple


def in_levels(frame_HWC: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """A frame, in the range of that dtype -> uint8 and labels as they are, of higher depth float32 in [-1, 1]."""
    if frame_HWC.dtype in (np.uint8, LABELS):
        return frame_HWC
    # Bicubic overshoots where it is not held to 8 bits.
    return np.clip(normalize(frame_HWC.astype(np.float32), WHITE[dtype]), -1.0, 1.0)


def check_sides(key: str, value: ImageSize) -> None:
    """Raise a ValueError, which names the setting, if it is no number of pixels, nor two."""
    if not all(1 <= side <= LARGEST for side in height_and_width(value, key=f"transform.{key}")):
        raise ValueError(f"transform.{key}={shown(value)} is out of range: use 1 to {LARGEST}")


def resize(frame_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pillow's bicubic, (height, width, C): uint8 of 1 or 3 channels stays that, all else is float32 of its range.

    Labels, int32, are those of the nearest pixels.
    """
    if frame_HWC.dtype == LABELS:
        rows, columns = (nearest(*sides) for sides in zip(frame_HWC.shape[:2], (height, width), strict=True))
        return frame_HWC[rows[:, None], columns]
    if frame_HWC.dtype == np.uint8 and frame_HWC.shape[2] in (1, 3):
        if frame_HWC.shape[:2] == (height, width):
            return frame_HWC
        image = Image.fromarray(frame_HWC.squeeze(2) if frame_HWC.shape[2] == 1 else frame_HWC)
        return np.asarray(_bicubic(image, height, width)).reshape(height, width, -1)
    planes = [Image.fromarray(plane) for plane in np.moveaxis(frame_HWC, 2, 0).astype(np.float32)]
    return np.stack([np.asarray(_bicubic(plane, height, width)) for plane in planes], axis=2)


def nearest(before: int, after: int) -> np.ndarray:
    """For each of `after` pixels in a row which of `before` lies where its middle is, as Pillow's NEAREST has it."""
    return ((np.arange(after) + 0.5) * (before / after)).astype(np.intp)


def to_size(frame_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 (H, W, C), or float32 in [-1, 1], by Pillow's bicubic -> the same of (height, width, C)."""
    if frame_HWC.dtype == np.float32:
        return np.clip(resize(frame_HWC, height, width), -1.0, 1.0)  # bicubic overshoots
    if frame_HWC.shape[2] in (1, 3):
        return resize(frame_HWC, height, width)
    planes = np.split(frame_HWC, frame_HWC.shape[2], axis=2)  # in 8 bits, too
    return np.concatenate([resize(plane, height, width) for plane in planes], axis=2)


def _bicubic(image: Image.Image, height: int, width: int) -> Image.Image:
    return image.resize((width, height), Image.Resampling.BICUBIC)
