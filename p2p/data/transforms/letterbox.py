"""Bring a frame to the network's size with its proportions kept: resized until it fits, its border repeated."""

from __future__ import annotations

import numpy as np

from p2p.data.transforms.sizing import in_levels, resize


class Letterbox:
    """In the place of `p2p.data.transforms.sizing.Sizing` where fit=pad.

    The bars repeat the image's border, as `p2p.data.transforms.tiling.pad` does, whose measurement says why.

    Args:
        height, width: that the network takes.
    """

    def __init__(self, height: int, width: int):
        self._height, self._width = height, width

    @property
    def size(self) -> tuple[int, int]:
        """Height and width that the network takes."""
        return self._height, self._width

    def __call__(self, frame_HWC: np.ndarray) -> np.ndarray:
        """See `Sizing`."""
        height, width, _ = frame_HWC.shape
        top, left, rows, columns = self._box(height, width)
        sized_HWC = in_levels(resize(frame_HWC, rows, columns), frame_HWC.dtype)
        below, right = self._height - rows - top, self._width - columns - left
        return np.pad(sized_HWC, ((top, below), (left, right), (0, 0)), mode="edge")

    def cut(self, frame_HWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Of the network's output the part that is of an image of that height and width, as a view."""
        top, left, rows, columns = self._box(*size)
        return frame_HWC[top : top + rows, left : left + columns]

    def _box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width of where an image lies."""
        scale = min(self._height / height, self._width / width)
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        return (self._height - rows) // 2, (self._width - columns) // 2, rows, columns
