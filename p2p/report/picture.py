"""Images side by side in one picture, with a line of text above each column and below each row."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MARGIN = 8
INK, PAPER = "#222222", "white"


def contact_sheet(
    rows: list[list[np.ndarray]], *, header: list[str], captions: list[str] | None = None, across: int = 1
) -> Image.Image:
    """Rows of equally sized uint8 frames (H, W, 1 or 3) -> one RGB picture.

    Args:
        rows: each as long as `header`.
        header: a title for each frame of a row.
        captions: a line below each row, or None.
        across: rows beside each other.
    """
    height, width = rows[0][0].shape[:2]
    across = min(across, len(rows))
    font = ImageFont.load_default(size=max(12, width // 10))
    line = round(font.size) + MARGIN
    block = (len(header) * (width + MARGIN) + MARGIN, height + MARGIN + (line if captions else 0))
    size = (across * block[0], MARGIN + line + math.ceil(len(rows) / across) * block[1])
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, row in enumerate(rows):
        left, top = index % across * block[0] + MARGIN, index // across * block[1] + MARGIN + line
        for title, frame in zip(header, row, strict=True):
            if index < across:
                draw.text((left + width / 2, MARGIN), title, INK, font, anchor="ma")
            sheet.paste(Image.fromarray(frame.squeeze(2) if frame.shape[2] == 1 else frame), (left, top))
            left += width + MARGIN
        if captions:
            draw.text((left - block[0] / 2, top + height + 2), captions[index], INK, font, anchor="ma")
    return sheet
