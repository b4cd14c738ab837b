"""Doubling the side without a grid: each pixel four times, then a convolution (Odena et al. 2016, distill.pub)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class ResizeConv2d(nn.Conv2d):
    """float (N, C, H, W) -> (N, C', 2H, 2W): nearest neighbour, then a 3x3 convolution.

    A transposed convolution of stride 2 computes the pixels of even and odd rows and columns by different weights,
    which may give a flat area a grid. Here all are of one kernel, and a constant stays one, but at the border.

    Both in one is a transposed convolution with a kernel of 4, computed as such, with 4 products a pixel in place of 9.
    In one dimension an even output is w[0] x[i-1] + (w[1] + w[2]) x[i], the odd one behind it
    (w[0] + w[1]) x[i] + w[2] x[i+1], and the kernel of the transposed convolution w[2], w[1] + w[2], w[0] + w[1], w[0].

    Args:
        into, out: channels.
        bias: whether it has one.
    """

    def __init__(self, into: int, out: int, *, bias: bool):
        super().__init__(into, out, 3, padding=1, bias=bias)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return F.conv_transpose2d(x_NCHW, self.transposed_weight(), self.bias, stride=2, padding=1)

    def transposed_weight(self) -> torch.Tensor:
        """(C, C', 4, 4): the kernel of the transposed convolution that computes the same."""
        weight = F.pad(self.weight.flip(2, 3).transpose(0, 1), (1, 1, 1, 1))
        rows = weight[:, :, :-1] + weight[:, :, 1:]
        return rows[:, :, :, :-1] + rows[:, :, :, 1:]
