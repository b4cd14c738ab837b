"""The ResNet of pytorch-CycleGAN-and-pix2pix, after Johnson et al. 2016 (arXiv 1603.08155), and of pix2pixHD."""

from itertools import pairwise

import torch
from torch import nn

from p2p.image_size import ImageSize, height_and_width, shown, suggestion
from p2p.models.checkpointing import check_checkpointing, forward
from p2p.models.norm import check_width, norm_layer


def check_sides(image_size: ImageSize, stride: int, *, network: str) -> None:
    """Raise a ValueError if a side is no multiple of the network's stride, or its features have no side to mirror."""
    least = 2 * stride
    if any(side % stride or side < least for side in height_and_width(image_size)):
        raise ValueError(
            f"image_size={shown(image_size)} does not suit a {network}, whose side must be a multiple of {stride},"
            f" {least} at least: use {suggestion(image_size, multiple=stride, least=least)}"
        )


def conv(into: int, out: int, side: int, *, norm: str, stride: int = 1, transposed: bool = False) -> list[nn.Module]:
    """A convolution that keeps the side, halves it or, transposed, doubles it, and its norm.

    Padding is by reflection at stride 1 and by zeros otherwise, as in pytorch-CycleGAN-and-pix2pix.
    """
    bias = norm != "batch"
    if transposed:
        layers = [nn.ConvTranspose2d(into, out, side, stride, padding=side // 2, output_padding=1, bias=bias)]
    elif stride > 1:
        layers = [nn.Conv2d(into, out, side, stride, padding=side // 2, bias=bias)]
    else:
        layers = [nn.ReflectionPad2d(side // 2), nn.Conv2d(into, out, side, bias=bias)]
    return [*layers, norm_layer(norm, out)]


class Block(nn.Sequential):
    """(N, C, H, W) -> the same shape: the input plus two 3x3 convolutions of it, with dropout between them if any."""

    def __init__(self, channels: int, *, norm: str, dropout: float):
        super().__init__(
            *conv(channels, channels, 3, norm=norm),
            nn.ReLU(),
            nn.Dropout(dropout) if dropout else nn.Identity(),
            *conv(channels, channels, 3, norm=norm),
        )

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """No ReLU behind the sum, as in pytorch-CycleGAN-and-pix2pix."""
        return x_NCHW + super().forward(x_NCHW)


class ResNet(nn.Sequential):
    """Downsamplings, residual blocks where the side is smallest, as many upsamplings; no other skip connections.

    In the notation of Zhu et al. 2017 (appendix 7.2): c7s1-64, d128, d256, R256 for each block, u128, u64,
    c7s1-3. Nine blocks have the 11.383 M parameters of `resnet_9blocks` in pytorch-CycleGAN-and-pix2pix, six
    the 7.841 M of `resnet_6blocks`. With four downsamplings, to 1024 channels, and instance norm, nine blocks are the
    global generator of pix2pixHD (Wang et al. 2018, sec. 3.1), of 182.443 M parameters.

    Args:
        in_channels: channels of the input image.
        out_channels: channels of the output image.
        image_size: side of the training crops in pixels, or [height, width]; checked and otherwise not used.
        blocks: residual blocks: 9 for 256 pixels and more, 6 for 128 (Zhu et al. 2017).
        width: channels of the first convolution, `ngf` in pytorch-CycleGAN-and-pix2pix.
        downsamplings: each halves the side and doubles the channels; 2 in pytorch-CycleGAN-and-pix2pix, 4 in pix2pixHD.
        norm: "batch", "instance" or "none".
        dropout: probability inside the blocks; 0 turns it off.
        checkpointing: train in less memory, see `p2p.models.checkpointing`.

    Raises:
        ValueError: image_size is no multiple of the stride, or too small, there is no width, or checkpointing cannot
            be.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        image_size: ImageSize = 256,
        blocks: int = 9,
        width: int = 64,
        downsamplings: int = 2,
        norm: str = "batch",
        dropout: float = 0.5,
        checkpointing: bool = False,
    ):
        check_width(width, network="generator")
        check_sides(image_size, 2**downsamplings, network="ResNet")
        if checkpointing:
            check_checkpointing(norm=norm, dropout=dropout)
        channels = [width * 2**level for level in range(downsamplings + 1)]  # 64, 128, 256
        layers = [*conv(in_channels, width, 7, norm=norm), nn.ReLU()]
        for into, out in pairwise(channels):
            layers += [*conv(into, out, 3, norm=norm, stride=2), nn.ReLU()]
        layers += [Block(channels[-1], norm=norm, dropout=dropout) for _ in range(blocks)]
        for into, out in pairwise(reversed(channels)):
            layers += [*conv(into, out, 3, norm=norm, stride=2, transposed=True), nn.ReLU()]
        super().__init__(*layers, *conv(width, out_channels, 7, norm="none")[:2], nn.Tanh())
        self.stride = 2**downsamplings
        self.checkpointing = checkpointing

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """float (N, C, H, W) in [-1, 1] -> (N, C', H, W) in [-1, 1]; H and W are multiples of `stride`."""
        return forward(self, x_NCHW, checkpointing=self.checkpointing)
