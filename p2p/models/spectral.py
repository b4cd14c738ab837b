"""Spectral normalization: a discriminator whose slope is bounded (Miyato et al. 2018, arXiv 1802.05957)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class SpectralConv2d(nn.Conv2d):
    """A convolution with its weight divided by the largest singular value of the matrix (C', C * height * width).

    The value is estimated by one step of power iteration in each forward pass of a training, as in the paper's
    algorithm 1, from where the last one ended. The gradient takes the two singular vectors for constants.

    Attributes:
        u: float32 (C'), the left one.
    """

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.register_buffer("u", F.normalize(torch.randn(self.out_channels), dim=0))

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """As a Conv2d."""
        with torch.autocast(x_NCHW.device.type, enabled=False):  # in 16 bits the iteration would not settle
            matrix = self.weight.flatten(1)
            with torch.no_grad():
                v = F.normalize(matrix.T @ self.u, dim=0)
                u = F.normalize(matrix @ v, dim=0)
                if self.training:
                    self.u.copy_(u)
            weight = self.weight / torch.dot(u, matrix @ v)
        return self._conv_forward(x_NCHW, weight, self.bias)
