"""A U-Net's weights in the order in which the kernels of `p2p.deploy.kernels.shifted_gemm` read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn


@dataclass(frozen=True)
class Layer:
    """A convolution as the kernels read it, and as a program file holds it.

    Attributes:
        weight: of `pack_down` or `pack_up`; of the first layer (C', C, 4, 4).
        bias: float32 (C',).
        norm: float32 (2, C'), weight and bias of the instance norm behind it; None for none.
        eps: of that norm.
        scale: float32, of each of the weight's rows, if it has 8 bits: what their sums are multiplied by.
        cells_times, flat_times: what its outputs are multiplied by for the encoder and for the decoder, if these
            read 8 bits.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    norm: torch.Tensor | None = None
    eps: float = 1e-5
    scale: torch.Tensor | None = None
    cells_times: float = 1.0
    flat_times: float = 1.0

    def to(self, device: torch.device) -> Layer:
        """A copy on that device."""
        moved = {key: value.to(device) for key, value in vars(self).items() if isinstance(value, torch.Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True)
class Weights:
    """All of a U-Net.

    Attributes:
        down: layers, outermost first.
        up: layers, innermost first.
        skips: whether the decoder's see the encoder's outputs.
    """

    down: list[Layer]
    up: list[Layer]
    skips: bool

    def to(self, device: torch.device) -> Weights:
        """A copy on that device."""
        return Weights([layer.to(device) for layer in self.down], [layer.to(device) for layer in self.up], self.skips)


def weights_of(network: nn.Module, *, dtype: torch.dtype) -> Weights:
    """What the kernels need to know of a network.

    Args:
        network: a `p2p.models.unet.UNet` in eval mode, on the CPU, its BatchNorms folded or made per-image.
        dtype: of the weights, float16 or bfloat16.

    Raises:
        ValueError: it is another network, or one that these kernels do not compute.
    """
    from p2p.models.unet import UNet  # only to export: a program runs without the code of models

    if type(network) is not UNet:  # a class of its own may compute something else around the layers
        raise ValueError("its kernels compute only U-Nets (generator=unet, encoder_decoder)")
    down = [
        _layer(block, (lambda w: w.contiguous()) if level == 0 else pack_down, dtype)
        for level, block in enumerate(network.down)
    ]
    narrow = min(len(layer.weight) for layer in down)
    if narrow % 16:
        raise ValueError(f"its kernels need channels in multiples of 16, and generator.width gives {narrow}")
    return Weights(down, [_layer(block, pack_up, dtype) for block in network.up], network.skips)


def _layer(block: nn.Module, pack: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype) -> Layer:
    [convolution] = [module for module in block if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))]
    assert (convolution.kernel_size, convolution.stride, convolution.padding) == ((4, 4), (2, 2), (1, 1))
    channels = convolution.out_channels
    bias = torch.zeros(channels) if convolution.bias is None else convolution.bias.detach().float()
    weight = pack(convolution.weight.detach().to(dtype))
    for module in block:
        if isinstance(module, nn.InstanceNorm2d):
            affine = (module.weight, module.bias) if module.affine else (torch.ones(channels), torch.zeros(channels))
            return Layer(weight, bias, torch.stack(affine).detach().float(), module.eps)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ValueError("its kernels need each BatchNorm folded into a convolution, and one could not be")
    return Layer(weight, bias)


def pack_down(weight: torch.Tensor) -> torch.Tensor:
    """(C', C, 4, 4) -> (C', 4 * 4 C): 2x2 cells, in each 2x2 pixels, in each C channels."""
    out, into = weight.shape[:2]
    cells = weight.reshape(out, into, 2, 2, 2, 2)  # row 2 i + j is row j of cell i, and columns alike
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(out, -1).contiguous()


def pack_up(weight: torch.Tensor) -> torch.Tensor:
    """(C, C', 4, 4) -> (4 C', 4 * C), rows in the order of 2x2 output pixels and C', at least 16 of them.

    Output pixel o takes w[o - 2 i + 1] of input pixel i. Those of window y are o = 2 y - 1 + s for s in 0, 1, and it
    sees i = y - 1, y: that is w[2 + s] and w[s].
    """
    into, out = weight.shape[:2]
    taps = weight.reshape(into, out, 2, 2, 2, 2).flip(2, 4)  # of row 2 i + s: i flipped, since y - 1 comes first
    packed = taps.permute(3, 5, 1, 2, 4, 0).reshape(4 * out, -1)
    return nn.functional.pad(packed, (0, 0, 0, max(0, 16 - len(packed)))).contiguous()
