"""Images side by side in one picture, with a line of text above each column and below each row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MARGIN = 8
INK, PAPER = "#222222", "white"

T = TypeVar("T")


def spread(items: Sequence[T], count: int) -> list[T]:
    """`count` of them at equal distances, from the first on; all of fewer.

    They stand for the whole without anyone choosing: the first by name are often of one kind.
    """
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def as_picture(frame_HWC: np.ndarray) -> Image.Image:
    """A uint8 frame (H, W, C) -> RGB from its first three channels, or grey from the first of one or two."""
    return Image.fromarray(frame_HWC[..., 0] if frame_HWC.shape[2] < 3 else np.ascontiguousarray(frame_HWC[..., :3]))


def contact_sheet(
    rows: list[list[np.ndarray]], *, header: list[str], captions: list[str] | None = None, across: int = 1
) -> Image.Image:
    """Rows of uint8 frames (H, W, C) -> one RGB picture. Of many channels it shows the first three, see `as_picture`.

    Args:
        rows: each as long as `header`; frames may differ in size and then stand at the top left of their cell.
        header: a title for each frame of a row.
        captions: a line below each row, or None.
        across: rows beside each other.
    """
    height, width = (max(frame.shape[axis] for row in rows for frame in row) for axis in (0, 1))
    across = min(across, len(rows))
    size_of_font = max(12, width // 10)
    font, line = ImageFont.load_default(size=size_of_font), size_of_font + MARGIN
    block = (len(header) * (width + MARGIN) + MARGIN, height + MARGIN + (line if captions else 0))
    size = (across * block[0], MARGIN + line + math.ceil(len(rows) / across) * block[1])
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, row in enumerate(rows):
        left, top = index % across * block[0] + MARGIN, index // across * block[1] + MARGIN + line
        for title, frame in zip(header, row, strict=True):
            if index < across:
                draw.text((left + width / 2, MARGIN), title, INK, font, anchor="ma")
            sheet.paste(as_picture(frame), (left, top))
            left += width + MARGIN
        if captions:
            draw.text((left - block[0] / 2, top + height + 2), captions[index], INK, font, anchor="ma")
    return sheet


def columns_of(sheet: Image.Image, count: int) -> list[Image.Image]:
    """The columns of a `contact_sheet` of `count` frames a row, without captions and one row across."""
    width = (sheet.width - MARGIN) // count - MARGIN
    top = 2 * MARGIN + max(12, width // 10)
    lefts = [MARGIN + index * (width + MARGIN) for index in range(count)]
    return [sheet.crop((left, top, left + width, sheet.height - MARGIN)) for left in lefts]
