"""The generator of pix2pixHD for the largest images (Wang et al. 2018, arXiv 1711.11585, sec. 3.1)."""

import torch
from torch import nn

from p2p.image_size import ImageSize, height_and_width
from p2p.models.checkpointing import forward
from p2p.models.multi_scale import halved
from p2p.models.resnet import Block, ResNet, check_sides, conv


class LocalEnhancer(nn.Module):
    """A ResNet at half the side, whose last features are added to those of a shallow network at the full side.

    As in pix2pixHD with one enhancer. The ResNet is `coarse`: `generator=global` but for its last convolution, with
    which it is trained alone first. Of width 32 there are 182.702 M parameters, of which 182.434 M are the ResNet's.

    Args:
        in_channels: channels of the input image.
        out_channels: channels of the output image.
        image_size: side of the training crops in pixels, or [height, width]; checked and otherwise not used.
        width: channels at the full side, `ngf` in pix2pixHD; those of the ResNet are twice as many.
        downsamplings: of the ResNet; the whole network's stride is 2 ** (downsamplings + 1).
        blocks: residual blocks of the ResNet.
        local_blocks: residual blocks at half the side.
        norm: "batch", "instance" or "none".
        checkpointing: see `ResNet`.

    Raises:
        ValueError: image_size is no multiple of the stride, or too small, or checkpointing cannot be.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        image_size: ImageSize = 1024,
        width: int = 32,
        downsamplings: int = 4,
        blocks: int = 9,
        local_blocks: int = 3,
        norm: str = "instance",
        checkpointing: bool = False,
    ):
        super().__init__()
        self.stride = 2 ** (downsamplings + 1)
        check_sides(image_size, self.stride, network="LocalEnhancer")
        coarse = ResNet(
            in_channels=in_channels,
            out_channels=out_channels,
            image_size=[side // 2 for side in height_and_width(image_size)],
            blocks=blocks,
            width=2 * width,
            downsamplings=downsamplings,
            norm=norm,
            dropout=0.0,
            checkpointing=checkpointing,
        )
        self.coarse = nn.Sequential(*list(coarse)[:-3])  # without padding, convolution and tanh at its end
        self.enter = nn.Sequential(
            *conv(in_channels, width, 7, norm=norm),
            nn.ReLU(),
            *conv(width, 2 * width, 3, norm=norm, stride=2),
            nn.ReLU(),
        )
        self.leave = nn.Sequential(
            *(Block(2 * width, norm=norm, dropout=0.0) for _ in range(local_blocks)),
            *conv(2 * width, width, 3, norm=norm, stride=2, transposed=True),
            nn.ReLU(),
            *conv(width, out_channels, 7, norm="none")[:2],
            nn.Tanh(),
        )
        self.checkpointing = checkpointing

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """float (N, C, H, W) in [-1, 1] -> (N, C', H, W) in [-1, 1]; H and W are multiples of `stride`."""
        coarse = forward(self.coarse, halved(x_NCHW), checkpointing=self.checkpointing)
        fine = forward(self.enter, x_NCHW, checkpointing=self.checkpointing)
        return forward(self.leave, coarse + fine, checkpointing=self.checkpointing)
