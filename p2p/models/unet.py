"""The U-Net generator of pix2pix (Isola et al. 2017, sec. 3.2.1 and appendix 6.1.1)."""

import torch
from torch import nn

from p2p.image_size import ImageSize, power_of_two_in, shown, suggestion
from p2p.models.norm import check_width, norm_layer
from p2p.models.resize import ResizeConv2d

MAX_DEPTH = 8  # unet_256, the deepest network of the paper; larger images keep a larger bottleneck
MIN_DEPTH = 5


def depth_for(image_size: ImageSize, depth: int | None = None) -> int:
    """Downsamplings that bring a side of `image_size` pixels to 1, at most 8; or `depth`, if the side allows it.

    256 gives 8 and 128 gives 7, unet_256 and unet_128 of pytorch-CycleGAN-and-pix2pix. A side that is no power of two
    is halved while it stays whole: 96 gives 5 and a bottleneck of 3x3. Of a rectangle both sides have to allow it:
    [256, 512] gives 8 and a bottleneck of 1x2.

    Raises:
        ValueError: a side cannot be halved `depth` times, or five times where no depth is asked for.
    """
    halvings = power_of_two_in(image_size).bit_length() - 1
    if depth is not None:
        if depth < 1:
            raise ValueError(f"generator.depth={depth} is too small: use 1 or more")
        if depth > halvings:
            raise ValueError(
                f"generator.depth={depth} halves a side {depth} times, which image_size={shown(image_size)} does not"
                f" allow: use a multiple of {2**depth} or a smaller depth"
            )
        return depth
    if halvings < MIN_DEPTH:
        raise ValueError(
            f"image_size={shown(image_size)} does not suit a U-Net, whose side must be a multiple of {2**MIN_DEPTH}: "
            f"use {suggestion(image_size, multiple=32, least=32)}, or choose generator.depth"
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
    """(N, C, H, W) -> (N, C', 2H, 2W): ReLU, 4x4 transposed convolution of stride 2, norm, dropout if any.

    With `resize` a `ResizeConv2d` in place of the transposed convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: str | None, resize: bool, dropout: float = 0.0):
        bias = norm != "batch"
        super().__init__(
            nn.ReLU(),
            ResizeConv2d(in_channels, out_channels, bias=bias)
            if resize
            else nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=bias),
            norm_layer(norm, out_channels),
            nn.Dropout(dropout) if dropout else nn.Identity(),
        )


class UNet(nn.Module):
    """An encoder and a decoder, with a skip connection between layers of equal size or without.

    With `image_size=256` these are the 54.414 M parameters of `unet_256` in pytorch-CycleGAN-and-pix2pix, with 128
    the 41.829 M of `unet_128`. Dropout stands in the decoder's blocks of 8 * width channels, but the
    innermost: three of them in unet_256, two in unet_128.

    Without skips it is the encoder-decoder of the paper's Table 2: the same layers, of which the decoder's
    see half as many channels.

    Args:
        in_channels: channels of the input image.
        out_channels: channels of the output image.
        image_size: side of the training crops in pixels, or [height, width]; sets the depth (`depth_for`).
        width: channels of the first convolution, `ngf` in pytorch-CycleGAN-and-pix2pix.
        norm: "batch", "instance" or "none".
        dropout: probability in the inner decoder blocks; 0 turns it off.
        depth: downsamplings, 1 or more; None leaves it to image_size.
        skips: hand each of the encoder's outputs to the decoder's layer of the same size.
        resize_last: how many of the decoder's last layers resize and convolve (`ResizeConv2d`); the others are
            transposed convolutions.

    Raises:
        ValueError: there are not as many layers, no width, or image_size does not allow the depth.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        image_size: ImageSize = 256,
        width: int = 64,
        norm: str = "batch",
        dropout: float = 0.5,
        depth: int | None = None,
        skips: bool = True,
        resize_last: int = 0,
    ):
        super().__init__()
        check_width(width, network="generator")
        depth = depth_for(image_size, depth)
        if not 0 <= resize_last <= depth:
            raise ValueError(f"generator.resize_last={resize_last} is out of range: use 0 to {depth}, its layers")
        channels = [width * min(2**level, 8) for level in range(depth)]  # 64, 128, 256, 512, 512, ...
        self.stride = 2**depth
        self.skips = skips

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
            into = 2 * channels[level] if skips and not innermost else channels[level]  # the skip doubles the channels
            resize = level < resize_last
            if outermost:
                self.up.append(Up(into, out_channels, norm="none", resize=resize))
            else:
                dropped = dropout if 4 <= level < depth - 1 else 0.0
                self.up.append(Up(into, channels[level - 1], norm=norm, resize=resize, dropout=dropped))

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """float (N, C, H, W) in [-1, 1] -> (N, C', H, W) in [-1, 1]; H and W are multiples of `stride`."""
        encoded = []
        for down in self.down:
            x_NCHW = down(x_NCHW)
            encoded.append(x_NCHW)
        x_NCHW = self.up[0](encoded.pop())
        for up in self.up[1:]:
            x_NCHW = up(torch.cat([encoded.pop(), x_NCHW], dim=1) if self.skips else x_NCHW)
        return torch.tanh(x_NCHW)
