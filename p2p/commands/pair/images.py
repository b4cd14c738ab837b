"""Images to images of another size: resize and pad. The names and folders of the files stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from p2p.codecs.pillow import NUMPY, Pillow, frame_of_image, is_deep, open_image
from p2p.codecs.values import check_labels, read_labels
from p2p.commands.pair import frames
from p2p.commands.pair.writing import write_all
from p2p.data.halves import check_half
from p2p.data.images import read_file
from p2p.data.pairs import Pair, check_outside, find_inputs, looks_side_by_side
from p2p.data.walk import Skipped, summary
from p2p.system.plural import counted

Layout = Literal["inputs", "side_by_side"]
GREY = ("1", "L", "LA", "La")  # Pillow's modes; of more than 8 bits there is only grey
SAMPLE = 100  # images whose shapes are looked at
LARGEST_LABEL = 65535  # that a PNG holds


@dataclass(frozen=True)
class Settings:
    """What images are, and what becomes of them.

    Attributes:
        codec: writes them.
        layout: "side_by_side": each half of an image is treated by itself. None: they are single images, and those that
            look like A|B are refused.
        labels: they hold labels, one number a pixel, grey or in a palette: each keeps its number.
        colour: of borders, and of what transparent images are laid on; of labels, a number.
        skip_existing: see `p2p.commands.pair.writing`.
    """

    codec: Pillow
    layout: Layout | None = None
    labels: bool = False
    colour: str = "white"
    skip_existing: bool = False

    @property
    def border(self) -> str | int:
        """The colour, or the label.

        Raises:
            ValueError: it is none.
        """
        if not self.labels:
            return frames.check_colour(self.colour)
        if not self.colour.isdecimal() or int(self.colour) > LARGEST_LABEL:
            raise ValueError(f"--colour={self.colour} is not a label: with --labels use a number, such as 0")
        return int(self.colour)


def resize(folder: Path, out: Path, *, size: str, padded: bool, settings: Settings) -> int:
    """Write every image below a folder at one size, under its own relative path; returns how many.

    Args:
        size: "256" or "512x256", width first; of A|B images the size of a half.
        padded: keep the whole image, inside borders; False: crop the middle to the shape of `size`.

    Raises:
        ValueError: a setting or the folder is no good; or, when the others are written, up to five of the images that
            cannot be made.
    """
    (width, height), border = frames.check_size(size), settings.border
    change = partial(frames.contain, border=border) if padded else frames.fit
    return _write(folder, out, partial(change, width=width, height=height), settings)


def pad(folder: Path, out: Path, *, size: str | None, settings: Settings) -> int:
    """Write every image below a folder with borders, under its own relative path; returns how many.

    Args:
        size: see `resize`; None: a square as large as the longer side.

    Raises:
        ValueError: see `resize`; an image is larger than the size.
    """
    border, sides = settings.border, None if size is None else frames.check_size(size)

    def with_borders(frame_HWC: np.ndarray) -> np.ndarray:
        width, height = sides or (max(frame_HWC.shape[:2]),) * 2
        return frames.pad(frame_HWC, width, height, border=border)

    return _write(folder, out, with_borders, settings)


def _write(folder: Path, out: Path, change: Callable[[np.ndarray], np.ndarray], settings: Settings) -> int:
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: give one that holds images")
    if settings.labels and settings.codec.suffix != ".png":
        raise ValueError("only png keeps labels as they are: leave --format out, or leave --labels out")
    check_outside(out, folder)
    skipped: Skipped = {}
    images = find_inputs(str(folder), layout="inputs", skipped=skipped)
    if skipped:
        print(f"{counted(len(images), 'image')} in {folder}{summary(skipped)}")
    if settings.layout is None and all(map(looks_side_by_side, images[:: -(-len(images) // SAMPLE)])):
        raise ValueError(
            f"the images in {folder} are twice as wide as high, as A|B images are: add --layout=side_by_side to treat"
            " each half by itself, or --layout=inputs if they are single images"
        )

    def make(image: Pair) -> bytes:
        data = read_file(image.input)
        try:
            frame_HWC = _read(data, settings)
            halves = [frame_HWC]
            if settings.layout == "side_by_side":
                check_half(image.input.path, frame_HWC.shape[1], frame_HWC.shape[0], None)
                halves = np.split(frame_HWC, 2, axis=1)
            return settings.codec.encode(_as_stored(np.hstack([change(half) for half in halves])))
        except ValueError as error:
            raise ValueError(f"cannot use {image.input.path}: {error}") from error

    return write_all(images, make, out, suffix=settings.codec.suffix, skip_existing=settings.skip_existing)


def _read(data: bytes, settings: Settings) -> np.ndarray:
    """uint8 (H, W, 3), (H, W, 1) of a grey file, uint16 (H, W, 1) of one of 16 bits, or labels, int32 (H, W, 1)."""
    if settings.labels:
        labels_HWC = read_labels(data)
        check_labels(labels_HWC)
        if labels_HWC.max() > LARGEST_LABEL:
            raise ValueError(f"it holds the label {labels_HWC.max()}, and png holds {LARGEST_LABEL} at most")
        return labels_HWC.astype(np.int32)
    if data.startswith(NUMPY):
        raise ValueError("it is an array, and only images are resized and padded here: do it in NumPy")
    image = open_image(data)
    channels = 1 if image.mode in GREY or is_deep(image) else 3
    frame_HWC = frame_of_image(image, channels=channels, background=settings.colour)
    if frame_HWC.dtype == np.float32:
        raise ValueError("it holds floats, which png, jpg and webp do not: train on it as it is")
    if frame_HWC.dtype != np.uint8 and settings.codec.suffix != ".png":
        raise ValueError("it has more than 8 bits a channel: leave --format out, for png keeps them")
    return frame_HWC


def _as_stored(frame_HWC: np.ndarray) -> np.ndarray:
    """Labels in as few bits as hold them."""
    if frame_HWC.dtype != np.int32:
        return frame_HWC
    return frame_HWC.astype(np.uint8 if frame_HWC.max() < 256 else np.uint16)
