"""8 bits instead of 16: what a tile of weights and pixels costs to copy and to multiply is halved.

Post-training quantization, symmetric (Jacob et al. 2018, sec. 2; Micikevicius et al. 2022 for fp8): a value is an
8-bit number times a scale. Activations share one scale a tensor, the largest value over some training images; each row
of a packed weight, which is one output channel of one pixel of the 2x2 it writes, has its own. A skip and the decoder's
own half of a layer's input keep their scales apart, since they can be folded into the weights before these are rounded.
Sums are exact (int8) or float32 (fp8), and are scaled, as one multiplication each, while a tile is stored.

The first layer reads the image, in 16 bits, and the last has 16 bits as well: its output is the picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from p2p.deploy.kernels.weights import Layer, Weights

LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


@dataclass(frozen=True)
class Ranges:
    """Largest values, one a layer.

    Attributes:
        cells: of the encoder's outputs after LeakyReLU(0.2), absolute, outermost first.
        skips: of the same after ReLU.
        ups: of the decoder's after ReLU, innermost first.
    """

    cells: list[float]
    skips: list[float]
    ups: list[float]


@torch.inference_mode()
def calibrate(network: nn.Module, images_NCHW: torch.Tensor) -> Ranges:
    """What the activations of a `p2p.models.unet.UNet` reach.

    Args:
        network: in eval mode, with the norms that it is deployed with.
        images_NCHW: float32 (N, C, H, W) in [-1, 1], real images on the network's device.
    """
    largest: dict[nn.Module, torch.Tensor] = {}
    smallest: dict[nn.Module, torch.Tensor] = {}

    def note(block: nn.Module, _, output: torch.Tensor) -> None:
        now = output.aminmax()
        smallest[block] = torch.minimum(smallest.get(block, now.min), now.min)
        largest[block] = torch.maximum(largest.get(block, now.max), now.max)

    handles = [block.register_forward_hook(note) for block in (*network.down, *network.up)]
    try:
        for images in images_NCHW.split(8):
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    lows, highs = ([float(bound[block]) for block in network.down] for bound in (smallest, largest))
    tiny = 1e-6  # of a channel that is never active
    return Ranges(
        cells=[max(high, -0.2 * low, tiny) for low, high in zip(lows, highs, strict=True)],
        skips=[max(high, tiny) for high in highs],
        ups=[max(float(largest[block]), tiny) for block in network.up],
    )


def quantize(weights: Weights, ranges: Ranges, *, dtype: torch.dtype, rest: torch.dtype) -> Weights:
    """The network with 8 bits in all layers but the first and the last.

    Args:
        weights: float32.
        dtype: torch.int8 or torch.float8_e4m3fn.
        rest: of those two, float16 or bfloat16.
    """
    largest, inner = LARGEST[dtype], len(weights.down) - 1
    cells, skips, ups = ([value / largest for value in values] for values in (ranges.cells, ranges.skips, ranges.ups))
    down, up = [], []
    for level, layer in enumerate(weights.down):
        layer = rounded(layer, [cells[level - 1]], dtype) if level else replace(layer, weight=layer.weight.to(rest))
        flat_times = 1 / skips[level] if level else 1.0  # level 0 is read by the last layer
        down.append(replace(layer, cells_times=1 / cells[level], flat_times=flat_times))
    for index, layer in enumerate(weights.up):
        level = inner - index
        halves = (
            [skips[level]] if level == inner else [skips[level], ups[index - 1]] if weights.skips else [ups[index - 1]]
        )
        layer = rounded(layer, halves, dtype) if level else replace(layer, weight=layer.weight.to(rest))
        up.append(replace(layer, flat_times=1 / ups[index] if level > 1 else 1.0))
    return Weights(down, up, weights.skips)


def rounded(layer: Layer, scales: list[float], dtype: torch.dtype) -> Layer:
    """A layer in 8 bits, whose inputs have these scales: one for all channels, or one for each half of them."""
    channels = layer.weight.shape[1] // 4
    into = torch.tensor(scales).repeat_interleave(channels // len(scales)).repeat(4)
    weight = layer.weight * into
    scale = weight.abs().amax(dim=1).clamp(min=1e-12) / LARGEST[dtype]
    weight = weight / scale[:, None]
    weight = weight.round() if dtype == torch.int8 else weight  # float8 rounds by itself
    return replace(layer, weight=weight.to(dtype), scale=scale)
