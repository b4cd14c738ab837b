"""Structural similarity without torchmetrics, which translating does not import."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import pad

SIDE, SIGMA = 11, 1.5  # of the Gaussian window, in pixels
K1, K2 = 0.01, 0.03


def ssim(images_NCHW: torch.Tensor, expected_NCHW: torch.Tensor) -> torch.Tensor:
    """SSIM of each image for values in [-1, 1]: float32 (N,), at most 1; NaN where a side is below 6 pixels.

    The mean over channels and over all places, of images that are mirrored at their edges: as val/SSIM of training.
    Source: Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity".
    """
    if min(images_NCHW.shape[2:]) <= SIDE // 2:
        return torch.full((len(images_NCHW),), torch.nan)
    x, y = (pad(each.float(), (SIDE // 2,) * 4, mode="reflect") for each in (images_NCHW, expected_NCHW))
    mean_x, mean_y, squares, products = (_blurred(each) for each in (x, y, x * x + y * y, x * y))
    c1, c2 = (2 * K1) ** 2, (2 * K2) ** 2  # 2: the range of values
    means, spread = 2 * mean_x * mean_y, mean_x.square() + mean_y.square()
    similar = (means + c1) / (spread + c1) * (2 * products - means + c2) / ((squares - spread).clamp(min=0) + c2)
    return similar.mean(dim=(1, 2, 3))


def _blurred(images_NCHW: torch.Tensor) -> torch.Tensor:
    """Under the window, where it fits. Sums of shifted images: a convolution takes 20 times as long on a CPU."""
    window = [math.exp(-((at - SIDE // 2) ** 2) / (2 * SIGMA**2)) for at in range(SIDE)]
    for axis in (2, 3):
        length = images_NCHW.shape[axis] - SIDE + 1
        total = torch.zeros_like(images_NCHW.narrow(axis, 0, length))
        for at, weight in enumerate(window):
            total.add_(images_NCHW.narrow(axis, at, length), alpha=weight / sum(window))
        images_NCHW = total
    return images_NCHW
