"""At a fixed image size, some weights of the innermost convolutions only ever meet padding."""

from __future__ import annotations

import copy

import torch
from torch import nn

Convolution = nn.Conv2d | nn.ConvTranspose2d


def drop_dead_taps(network: nn.Module, example_NCHW: torch.Tensor) -> nn.Module:
    """A copy without the weights that cannot matter at this image size; `network` itself is left as it is.

    A U-Net that goes down to a single pixel has a convolution of kernel 4, stride 2 and padding 1 on 2x2 pixels, of
    which 12 of the 16 taps lie on the padding, and a transposed one on a single pixel, of which 12 of the 16 outputs
    are cut off. They become a kernel of 2 without padding. In unet_256 that is 6.3 M of its 54.4 M weights, which
    are what a GPU reads at batch 1. The copy computes the same for images of this size alone.

    Args:
        network: in eval mode.
        example_NCHW: of the size, dtype and device that the network takes; its values do not matter.
    """
    assert not any(module.training for module in network.modules()), "a rewrite needs a network in eval mode"
    network = copy.deepcopy(network)
    sizes: dict[Convolution, set[tuple[torch.Size, torch.Size]]] = {}

    def record(layer: Convolution, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        sizes.setdefault(layer, set()).add((inputs[0].shape[2:], output.shape[2:]))

    layers = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))]
    hooks = [layer.register_forward_hook(record) for layer in layers]
    with torch.no_grad():
        network(example_NCHW[:1])
    for hook in hooks:
        hook.remove()
    for layer, seen in sizes.items():
        if len(seen) == 1:  # a layer that is used twice may see two sizes
            _crop(layer, *seen.pop())
    return network


def _crop(layer: Convolution, before: torch.Size, after: torch.Size) -> None:
    """Cut the kernel down to the taps that are used, in place, where nothing but the padding has to change."""
    if layer.dilation != (1, 1) or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return
    transposed = isinstance(layer, nn.ConvTranspose2d)
    if transposed and layer.output_padding != (0, 0):
        return
    slices, paddings = [], []
    for small, large, side, stride, padding in zip(
        *((before, after) if transposed else (after, before)),
        layer.kernel_size,
        layer.stride,
        layer.padding,
        strict=True,
    ):
        # Both kinds connect the pixel i of the smaller image with stride * i - padding + tap of the larger one.
        used = [tap for tap in range(side) if any(0 <= stride * i - padding + tap < large for i in range(small))]
        if not used:
            return
        first, last = used[0], used[-1]
        kept = stride * (small - 1) + (last - first + 1) - 2 * (padding - first)  # the larger side that would fit
        if kept != large if transposed else not kept <= large < kept + stride:
            return
        slices.append(slice(first, last + 1))
        paddings.append(padding - first)
    layer.weight = nn.Parameter(layer.weight.detach()[(..., *slices)].clone(), requires_grad=False)
    layer.kernel_size = tuple(layer.weight.shape[2:])
    layer.padding = tuple(paddings)
