"""The discriminator of pix2pixHD (Wang et al. 2018, arXiv 1711.11585, sec. 3.2): PatchGANs on an image pyramid."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from p2p.models.patchgan import PatchGAN


def halved(image_NCHW: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) -> (N, C, H/2, W/2), rounded up: means of 3x3 pixels, at the border of those that there are."""
    return F.avg_pool2d(image_NCHW, 3, stride=2, padding=1, count_include_pad=False)


class MultiScale(nn.Module):
    """Equal PatchGANs, each of which judges the pair at half the side of the one before: style and texture alike.

    As in pix2pixHD, but for the padding of the 4x4 convolutions, which is pix2pix's 1 and not 2. Two of three layers
    have 2 * 2.768 M parameters.

    Args:
        scales: PatchGANs, 1 or more; pix2pixHD has 2 for 1024x512 pixels, 3 for 2048x1024.
        input_channels, target_channels, layers, width, norm, conditional, spectral_norm: of each, see
            `PatchGAN`.
    """

    def __init__(
        self,
        *,
        input_channels: int = 3,
        target_channels: int = 3,
        scales: int = 2,
        layers: int = 3,
        width: int = 64,
        norm: str = "instance",
        conditional: bool = True,
        spectral_norm: bool = False,
    ):
        super().__init__()
        if scales < 1:
            raise ValueError(f"discriminator.scales={scales} is too small: use 1 or more")
        # Coarsest first: one scale more leaves the others their names in a checkpoint.
        self.scales = nn.ModuleList(
            PatchGAN(
                input_channels=input_channels,
                target_channels=target_channels,
                layers=layers,
                width=width,
                norm=norm,
                conditional=conditional,
                spectral_norm=spectral_norm,
            )
            for _ in range(scales)
        )
        self.conditional = conditional
        self.layers = layers

    def forward(
        self, input_NCHW: torch.Tensor, image_NCHW: torch.Tensor, *, activations: bool = False
    ) -> list[torch.Tensor] | list[list[torch.Tensor]]:
        """As of `PatchGAN`, of each scale, the finest first: logits, or activations.

        Raises:
            ValueError: the images are too small for as many scales.
        """
        count = len(self.scales)
        side, needed = min(image_NCHW.shape[-2:]), 3 * 2 ** (self.layers + count - 1)
        if side < needed:
            raise ValueError(
                f"discriminator.scales={count} of {self.layers} layers need images of {needed} pixels and got {side}:"
                " use a larger image_size, fewer scales or fewer layers"
            )
        found = []
        for scale, judge in enumerate(reversed(self.scales)):
            if scale:
                input_NCHW, image_NCHW = halved(input_NCHW), halved(image_NCHW)
            if activations:
                found += judge(input_NCHW, image_NCHW, activations=True)
            else:
                found.append(judge(input_NCHW, image_NCHW))
        return found
