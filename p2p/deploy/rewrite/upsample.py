"""Transposed convolutions of stride 2 as ordinary convolutions of windows (Shi et al. 2016, arXiv 1609.07009)."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F


class SubPixelConv2d(nn.Module):
    """float (N, C, H, W) -> (N, C', 2H, 2W): what a transposed convolution of stride 2 computes, by an ordinary one.

    It takes kernels of 4 and padding 1 (the U-Net's), and kernels of 3, padding 1 and output padding 1 (the
    ResNet's), which are kernels of 4 whose last tap is 0.

    In one dimension, the transposed convolution adds x[i] * w[k] to the output y[2i - 1 + k]. So an output sees two
    inputs only, and the two outputs that lie between the same two inputs can be computed from one window:

        inputs         x[j-1]           x[j]            window j, for j = 0..H; x[-1] and x[H] are padding
        outputs            y[2j-1]  y[2j]

        y[2j-1] = x[j-1] * w[2] + x[j] * w[0]
        y[2j]   = x[j-1] * w[3] + x[j] * w[1]

    That is a convolution with a kernel of 2 and padding 1 to two channels, of which the tap t of parity a is
    w[a + 2 * (1 - t)]. In two dimensions it has 2x2 taps and four channels for each output channel, which a pixel
    shuffle lays side by side. The shuffle gives y[-1..2H]: one pixel too many at each border, which are cut off.

    With kernels of 4 it multiplies as often as the transposed convolution, but for the windows at the border:
    (H+1)(W+1) in place of HW. With kernels of 3, 16 times where the other multiplies 9 times.

    Args:
        transposed: the layer to replace, see `fits`.
    """

    def __init__(self, transposed: nn.ConvTranspose2d):
        super().__init__()
        assert self.fits(transposed), transposed
        weight = transposed.weight.detach()
        into, out, side, _ = weight.shape
        weight = F.pad(weight, (0, 4 - side, 0, 4 - side))
        # Each side of the kernel by parity: k = a + 2 * (1 - t) for t = 0, 1.
        taps = torch.tensor([[2, 0], [3, 1]], device=weight.device)
        # (in, out, y parity, y tap, x parity, x tap), by two index tensors that broadcast against each other
        weight = weight[:, :, taps[:, :, None, None], taps]
        # The order in which pixel_shuffle takes its channels: output channel, y parity, x parity.
        weight = weight.permute(1, 2, 4, 0, 3, 5).reshape(4 * out, into, 2, 2)
        bias = transposed.bias
        self.convolution = nn.Conv2d(into, 4 * out, 2, padding=1, bias=bias is not None, device="meta")
        self.convolution.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
        if bias is not None:
            self.convolution.bias = nn.Parameter(bias.detach().repeat_interleave(4), requires_grad=False)

    @staticmethod
    def fits(layer: nn.Module) -> bool:
        """Whether a layer is a transposed convolution that this one can replace."""
        return (
            isinstance(layer, nn.ConvTranspose2d)
            and (layer.kernel_size, layer.output_padding) in (((4, 4), (0, 0)), ((3, 3), (1, 1)))
            and (layer.stride, layer.padding, layer.dilation, layer.groups) == ((2, 2), (1, 1), (1, 1), 1)
        )

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return F.pixel_shuffle(self.convolution(x_NCHW), 2)[:, :, 1:-1, 1:-1]


def sub_pixel(network: nn.Module) -> nn.Module:
    """A copy with its last transposed convolution of stride 2 as a `SubPixelConv2d`; `network` itself stays as it is.

    The last one has few output channels, of which GPU kernels fill a tile of 32 or more, so that four times as many
    come for free; and its side is large, so that the windows at the border are few. The others gain nothing
    (benchmarks/README.md).

    Args:
        network: in eval mode.
    """
    assert not any(module.training for module in network.modules()), "a rewrite needs a network in eval mode"
    network = copy.deepcopy(network)
    found = [
        (parent, name)
        for parent in network.modules()
        for name, child in parent.named_children()
        if SubPixelConv2d.fits(child)
    ]
    for parent, name in found[-1:]:
        setattr(parent, name, SubPixelConv2d(getattr(parent, name)).eval())
    return network
