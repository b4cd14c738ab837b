"""The first convolution over blocks of pixels: 12 channels where images have 3, of which GPU kernels waste less."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F


class SpaceToDepthConv2d(nn.Module):
    """float (N, C, H, W), H and W even -> (N, C', H/2, W/2): a convolution of kernel 4, stride 2 and padding 1.

    In one dimension y[o] is the sum over k of x[2o - 1 + k] * w[k]. With one pixel of padding on both sides, and two
    neighbours taken together as the parities of one pixel, k = 2t + a is the tap t of parity a: a convolution with a
    kernel of 2 and stride 1 of four times as many channels, which multiplies exactly as often.

    Args:
        convolution: the layer to replace, see `fits`.
    """

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        assert self.fits(convolution), convolution
        weight = convolution.weight.detach()
        # (out, in, y tap, y parity, x tap, x parity), then the order in which pixel_unshuffle lays its channels:
        # input channel, y parity, x parity.
        weight = weight.unflatten(3, (2, 2)).unflatten(2, (2, 2)).permute(0, 1, 3, 5, 2, 4)
        self.weight = nn.Parameter(weight.flatten(1, 3).contiguous(), requires_grad=False)
        bias = convolution.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)

    @staticmethod
    def fits(layer: nn.Module) -> bool:
        """Whether a layer is a convolution that this one can replace."""
        return (
            isinstance(layer, nn.Conv2d)
            and (layer.kernel_size, layer.stride, layer.padding) == ((4, 4), (2, 2), (1, 1))
            and (layer.dilation, layer.groups, layer.padding_mode) == ((1, 1), 1, "zeros")
        )

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return F.conv2d(F.pixel_unshuffle(F.pad(x_NCHW, (1, 1, 1, 1)), 2), self.weight, self.bias)


def space_to_depth(network: nn.Module) -> nn.Module:
    """A copy of which the first convolution is a `SpaceToDepthConv2d`, if it fits; `network` itself is left as it is.

    Only the first has so few channels that this can help. A ResNet's, of stride 1, stays as it is.

    Args:
        network: in eval mode.
    """
    assert not any(module.training for module in network.modules()), "a rewrite needs a network in eval mode"
    network = copy.deepcopy(network)
    for parent in network.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d):
                if SpaceToDepthConv2d.fits(child):
                    setattr(parent, name, SpaceToDepthConv2d(child).eval())
                return network
    return network
