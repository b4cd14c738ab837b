"""Resizing and convolving in one: the transposed convolution that it is, for which there are kernels everywhere."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from p2p.models.resize import ResizeConv2d


@torch.no_grad()
def fold_resize(network: nn.Module) -> nn.Module:
    """A copy whose `ResizeConv2d`s are ConvTranspose2ds; `network` itself is left as it is."""
    from p2p.models.resize import ResizeConv2d  # only to export: a program runs without the code of models

    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, ResizeConv2d):
                setattr(parent, name, _transposed(child))
    return network


def _transposed(layer: ResizeConv2d) -> nn.ConvTranspose2d:
    bias = layer.bias is not None
    made = nn.ConvTranspose2d(layer.in_channels, layer.out_channels, 4, 2, 1, bias=bias, device="meta")
    made.weight = nn.Parameter(layer.transposed_weight(), requires_grad=False)
    made.bias = nn.Parameter(layer.bias.clone(), requires_grad=False) if bias else None
    return made.train(layer.training)
