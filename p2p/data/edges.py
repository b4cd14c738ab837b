"""Line drawings of photos, by Canny's edge detector (Canny 1986, "A computational approach to edge detection")."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional as F

# Neighbours across the edge, (row, column), for gradients towards 0, 45, 90 and 135 degrees
ACROSS = ((0, 1), (1, 1), (1, 0), (1, -1))


def line_drawing(frame_HWC: np.ndarray, *, sigma: float = 1.5, low: float = 0.02, high: float = 0.05) -> np.ndarray:
    """Black lines one pixel wide on white where a photo has edges.

    Args:
        frame_HWC: uint8 (H, W, C) in [0, 255].
        sigma: of the Gaussian that goes first, in pixels: larger leaves out finer detail.
        low, high: slopes in shares of the way from black to white per pixel. A line is drawn where the slope is a
            maximum above `high`, and from there on as far as it stays above `low`.

    Returns:
        uint8 (H, W, 1): 0 on lines, 255 elsewhere.

    Raises:
        ValueError: an argument is out of range.
    """
    check_arguments(sigma=sigma, low=low, high=high)
    planes = torch.from_numpy(np.ascontiguousarray(np.moveaxis(frame_HWC, 2, 0)))[:, None].float() / 255
    slope, direction = gradient(blur(planes, sigma))
    thin = thinned(slope, direction)
    return np.where(connected(thin > high, thin > low).numpy(), 0, 255).astype(np.uint8)[..., None]


def check_arguments(*, sigma: float, low: float, high: float) -> None:
    """Raise a ValueError if one of those of `line_drawing` is out of range."""
    if not (sigma > 0 and 0 < low <= high):
        raise ValueError(f"sigma={sigma:g}, low={low:g}, high={high:g}: sigma must be above 0, and 0 < low <= high")


def blur(planes_C1HW: torch.Tensor, sigma: float) -> torch.Tensor:
    """A Gaussian of `sigma` pixels, cut at three sigma, the border repeated."""
    radius = math.ceil(3 * sigma)
    kernel = torch.exp(-(torch.arange(-radius, radius + 1.0) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    padded = F.pad(planes_C1HW, (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


def gradient(planes_C1HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sobel's slope in units per pixel, and its direction as an index into ACROSS, both (H, W).

    Of several channels each pixel has the one that is steepest there, so edges between colours of equal
    brightness are seen.
    """
    sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    across = F.conv2d(F.pad(planes_C1HW, (1,) * 4, mode="replicate"), torch.stack([sobel, sobel.T])[:, None])
    slopes = across.norm(dim=1)
    slope, steepest = slopes.max(dim=0)
    dx, dy = across.gather(0, steepest[None, None].expand(1, 2, -1, -1))[0]
    octants = torch.round(torch.atan2(dy, dx) / (math.pi / 4)).long()
    return slope, octants % 4


def thinned(slope_HW: torch.Tensor, direction_HW: torch.Tensor) -> torch.Tensor:
    """The slope where it is a maximum along its own direction, else 0. Of two equal neighbours one is kept."""
    height, width = slope_HW.shape
    padded = F.pad(slope_HW, (1,) * 4)
    keep = torch.zeros_like(slope_HW, dtype=torch.bool)
    for index, (row, column) in enumerate(ACROSS):
        ahead = padded[1 + row : 1 + row + height, 1 + column : 1 + column + width]
        behind = padded[1 - row : 1 - row + height, 1 - column : 1 - column + width]
        # Beyond rounding: the slopes on both sides of an ideal step are equal.
        keep |= (direction_HW == index) & (slope_HW > ahead + 1e-6) & (slope_HW >= behind - 1e-6)
    return slope_HW * keep


def connected(strong_HW: torch.Tensor, weak_HW: torch.Tensor) -> torch.Tensor:
    """The pixels of `weak_HW` that a path of them, diagonal steps included, joins with one of `strong_HW`."""
    reached = strong_HW & weak_HW
    while True:
        grown = F.max_pool2d(reached[None].float(), 3, stride=1, padding=1)[0].bool() & weak_HW
        if torch.equal(grown, reached):
            return reached
        reached = grown
