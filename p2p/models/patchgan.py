"""The discriminators of pix2pix (Isola et al. 2017, sec. 3.2.2 and appendix 6.1.2): patches, and single pixels."""

from itertools import pairwise

import torch
from torch import nn

from p2p.models.norm import check_width, norm_layer
from p2p.models.spectral import SpectralConv2d


class Judge(nn.Sequential):
    """Convolutions, each with its LeakyReLU, and one to logits.

    Args:
        layers: all of them, in order.
        conditional: show them the input beside the image.
    """

    def __init__(self, *layers: nn.Module, conditional: bool):
        super().__init__(*layers)
        self.conditional = conditional

    def forward(
        self, input_NCHW: torch.Tensor, image_NCHW: torch.Tensor, *, activations: bool = False
    ) -> torch.Tensor | list[list[torch.Tensor]]:
        """An input and an image claimed to be its target, both in [-1, 1] -> logits (N, 1, H', W'), high for real.

        With `activations` a list of one scale: what each LeakyReLU gives, and the logits at the end.
        """
        seen = torch.cat([input_NCHW, image_NCHW], dim=1) if self.conditional else image_NCHW
        if not activations:
            return super().forward(seen)
        found = []
        for layer in self:
            seen = layer(seen)
            if isinstance(layer, nn.LeakyReLU):
                found.append(seen)
        return [[*found, seen]]


class PatchGAN(Judge):
    """Judges every patch of an image on its own: a fully convolutional classifier without a final sigmoid.

    With 3 layers, each logit sees 70x70 pixels; an image of 256x256 gives 30x30 logits, by 2.769 M parameters.

    Args:
        input_channels: channels of the input image, the condition.
        target_channels: channels of the image to be judged.
        layers: convolutions of stride 2, 1 or more; two of stride 1 follow. 1 sees 16x16 pixels, 3 70x70,
            5 286x286 (Table 3 of the paper). Images need a side of 3 * 2**layers.
        width: channels of the first convolution, `ndf` in pytorch-CycleGAN-and-pix2pix.
        norm: "batch", "instance" or "none".
        conditional: show it the input beside the image; False gives the "GAN" rows of the paper's Table 1.
        spectral_norm: of every convolution, see `SpectralConv2d`. A norm behind it undoes the scale: use norm="none".
    """

    def __init__(
        self,
        *,
        input_channels: int = 3,
        target_channels: int = 3,
        layers: int = 3,
        width: int = 64,
        norm: str = "batch",
        conditional: bool = True,
        spectral_norm: bool = False,
    ):
        check_width(width, network="discriminator")
        if layers < 1:
            raise ValueError(f"discriminator.layers={layers} is too small: use 1 or more, or discriminator=pixel")
        channels = [target_channels + (input_channels if conditional else 0)]
        channels += [width * min(2**layer, 8) for layer in range(layers + 1)]  # 6, 64, 128, 256, 512
        modules: list[nn.Module] = []
        conv = SpectralConv2d if spectral_norm else nn.Conv2d
        for layer, (into, out) in enumerate(pairwise(channels)):
            first, stride = layer == 0, 1 if layer == layers else 2
            normed = norm if not first else "none"
            modules += [conv(into, out, 4, stride, padding=1, bias=normed != "batch"), norm_layer(normed, out)]
            modules += [nn.LeakyReLU(0.2)]
        super().__init__(*modules, conv(channels[-1], 1, 4, stride=1, padding=1), conditional=conditional)
        self.layers = layers

    def forward(
        self, input_NCHW: torch.Tensor, image_NCHW: torch.Tensor, *, activations: bool = False
    ) -> torch.Tensor | list[list[torch.Tensor]]:
        """See `Judge`.

        Raises:
            ValueError: the images are too small for as many layers.
        """
        side, needed = min(image_NCHW.shape[-2:]), 3 * 2**self.layers
        if side < needed:
            raise ValueError(
                f"discriminator.layers={self.layers} needs images of {needed} pixels and got {side}: "
                "use a larger image_size or fewer layers"
            )
        return super().forward(input_NCHW, image_NCHW, activations=activations)


class PixelGAN(Judge):
    """Judges every pixel on its own, by 1x1 convolutions: C64-C128, then one logit.

    It can make colours plausible, but no texture (Table 3 of the paper, 1x1). As in pytorch-CycleGAN-and-pix2pix, the
    last convolution has no bias under batch norm.

    Args:
        input_channels: channels of the input image, the condition.
        target_channels: channels of the image to be judged.
        width: channels of the first convolution, `ndf` in pytorch-CycleGAN-and-pix2pix.
        norm: "batch", "instance" or "none".
        conditional: show it the input beside the image.
        spectral_norm: see `PatchGAN`.
    """

    def __init__(
        self,
        *,
        input_channels: int = 3,
        target_channels: int = 3,
        width: int = 64,
        norm: str = "batch",
        conditional: bool = True,
        spectral_norm: bool = False,
    ):
        check_width(width, network="discriminator")
        conv = SpectralConv2d if spectral_norm else nn.Conv2d
        super().__init__(
            conv(target_channels + (input_channels if conditional else 0), width, 1),
            nn.LeakyReLU(0.2),
            conv(width, 2 * width, 1, bias=norm != "batch"),
            norm_layer(norm, 2 * width),
            nn.LeakyReLU(0.2),
            conv(2 * width, 1, 1, bias=norm != "batch"),
            conditional=conditional,
        )
