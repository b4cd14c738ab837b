"""The ResNet generator of the reference, after Johnson et al. 2016 (arXiv 1603.08155)."""

import torch
from torch import nn

from p2p.models.norm import check_width, norm_layer

STRIDE = 4  # of the two downsamplings together
MIN_SIDE = 8  # a quarter of it must have a neighbour to mirror


def conv(into: int, out: int, side: int, *, norm: str, stride: int = 1, transposed: bool = False) -> list[nn.Module]:
    """A convolution that keeps the side, halves it or, transposed, doubles it, and its norm.

    Padding is by reflection at stride 1 and by zeros otherwise, as in the reference.
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
        """No ReLU behind the sum, as in the reference."""
        return x_NCHW + super().forward(x_NCHW)


class ResNet(nn.Sequential):
    """Two downsamplings, residual blocks at a quarter of the side, two upsamplings; no other skip connections.

    In the notation of Zhu et al. 2017 (appendix 7.2): c7s1-64, d128, d256, R256 for each block, u128, u64,
    c7s1-3. Nine blocks have the 11.383 M parameters of the reference's `resnet_9blocks`, six the 7.841 M of
    `resnet_6blocks`.

    Args:
        in_channels: channels of the input image.
        out_channels: channels of the output image.
        image_size: side of the training crops in pixels, checked and otherwise not used.
        blocks: residual blocks: 9 for 256 pixels and more, 6 for 128 (Zhu et al. 2017).
        width: channels of the first convolution, `ngf` in the reference.
        norm: "batch", "instance" or "none".
        dropout: probability inside the blocks; 0 turns it off.

    Raises:
        ValueError: image_size is no multiple of 4, or too small, or there is no width.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        image_size: int = 256,
        blocks: int = 9,
        width: int = 64,
        norm: str = "batch",
        dropout: float = 0.5,
    ):
        check_width(width, network="generator")
        if image_size % STRIDE or image_size < MIN_SIDE:
            below = max(MIN_SIDE, image_size // STRIDE * STRIDE)
            raise ValueError(
                f"image_size={image_size} does not suit a ResNet, whose side must be a multiple of {STRIDE}:"
                f" use {below} or {below + STRIDE}"
            )
        super().__init__(
            *conv(in_channels, width, 7, norm=norm),
            nn.ReLU(),
            *conv(width, 2 * width, 3, norm=norm, stride=2),
            nn.ReLU(),
            *conv(2 * width, 4 * width, 3, norm=norm, stride=2),
            nn.ReLU(),
            *(Block(4 * width, norm=norm, dropout=dropout) for _ in range(blocks)),
            *conv(4 * width, 2 * width, 3, norm=norm, stride=2, transposed=True),
            nn.ReLU(),
            *conv(2 * width, width, 3, norm=norm, stride=2, transposed=True),
            nn.ReLU(),
            *conv(width, out_channels, 7, norm="none")[:2],
            nn.Tanh(),
        )
        self.stride = STRIDE

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """float (N, C, H, W) in [-1, 1] -> (N, C', H, W) in [-1, 1]; H and W are multiples of 4."""
        return super().forward(x_NCHW)
