"""The U-Net generator of pix2pix (Isola et al. 2017, sec. 3.2.1 and appendix 6.1.1)."""

import torch
from torch import nn

from p2p.models.norm import norm_layer

MAX_DEPTH = 8  # unet_256, the deepest network of the paper; larger images keep a larger bottleneck
MIN_DEPTH = 5


def depth_for(image_size: int) -> int:
    """Downsamplings that bring a side of `image_size` pixels to 1, at most 8.

    256 gives 8 and 128 gives 7, the reference's unet_256 and unet_128. A side that is no power of two is
    halved while it stays whole: 96 gives 5 and a bottleneck of 3x3.

    Raises:
        ValueError: the side cannot be halved five times.
    """
    halvings = (image_size & -image_size).bit_length() - 1
    if image_size <= 0 or halvings < MIN_DEPTH:
        below = max(32, image_size // 32 * 32)
        raise ValueError(
            f"image_size={image_size} does not suit a U-Net, whose side must be a multiple of {2**MIN_DEPTH}: "
            f"use {below} or {below + 32}"
        )
    return min(halvings, MAX_DEPTH)


class Down(nn.Sequential):
    """(N, C, H, W) -> (N, C', H/2, W/2): LeakyReLU(0.2) unless first, 4x4 convolution of stride 2, norm if any."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: str | None, bias: bool, first: bool = False):
        super().__init__(
            nn.Identity() if first else nn.LeakyReLU(0.2),
            nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1, bias=bias),
            norm_layer(norm, out_channels),
        )


class Up(nn.Sequential):
    """(N, C, H, W) -> (N, C', 2H, 2W): ReLU, 4x4 transposed convolution of stride 2, norm, dropout if any."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: str | None, dropout: float = 0.0):
        super().__init__(
            nn.ReLU(),
            nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=norm != "batch"),
            norm_layer(norm, out_channels),
            nn.Dropout(dropout) if dropout else nn.Identity(),
        )


class UNet(nn.Module):
    """An encoder and a decoder with a skip connection between layers of equal size.

    With `image_size=256` these are the 54.414 M parameters of the reference's `unet_256`, with 128 the
    41.829 M of `unet_128`. Dropout stands in the decoder's blocks of 8 * width channels, but the
    innermost: three of them in unet_256, two in unet_128.

    Args:
        in_channels: channels of the input image.
        out_channels: channels of the output image.
        image_size: side of the training crops in pixels; sets the depth (`depth_for`).
        width: channels of the first convolution, `ngf` in the reference.
        norm: "batch", "instance" or "none".
        dropout: probability in the inner decoder blocks; 0 turns it off.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        image_size: int = 256,
        width: int = 64,
        norm: str = "batch",
        dropout: float = 0.5,
    ):
        super().__init__()
        depth = depth_for(image_size)
        channels = [width * min(2**level, 8) for level in range(depth)]  # 64, 128, 256, 512, 512, ...
        self.stride = 2**depth

        self.down = nn.ModuleList()
        for level, out in enumerate(channels):
            outermost, innermost = level == 0, level == depth - 1
            into = in_channels if outermost else channels[level - 1]
            normed = "none" if outermost or innermost else norm
            # Under batch norm the reference's first and innermost convolutions have no bias either.
            self.down.append(Down(into, out, norm=normed, bias=norm != "batch", first=outermost))

        self.up = nn.ModuleList()
        for level in reversed(range(depth)):
            outermost, innermost = level == 0, level == depth - 1
            into = channels[level] if innermost else 2 * channels[level]  # the skip doubles the channels
            if outermost:
                self.up.append(Up(into, out_channels, norm="none"))
            else:
                inner = 4 <= level < depth - 1
                self.up.append(Up(into, channels[level - 1], norm=norm, dropout=dropout if inner else 0.0))

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """float (N, C, H, W) in [-1, 1] -> (N, C', H, W) in [-1, 1]; H and W are multiples of `stride`."""
        skips = []
        for down in self.down:
            x_NCHW = down(x_NCHW)
            skips.append(x_NCHW)
        x_NCHW = self.up[0](skips.pop())
        for up in self.up[1:]:
            x_NCHW = up(torch.cat([skips.pop(), x_NCHW], dim=1))
        return torch.tanh(x_NCHW)
