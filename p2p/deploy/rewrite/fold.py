"""BatchNorm with running statistics is a scale and a shift of each channel, which the convolution before it can do."""

from __future__ import annotations

import copy

import torch
from torch import nn


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """A copy whose convolutions do the work of the BatchNorms behind them; `network` itself is left as it is.

    In eval mode BatchNorm computes (x - mean) / sqrt(var + eps) * weight + bias, all but x constant per channel. Where
    it directly follows a Conv2d or ConvTranspose2d in an nn.Sequential, the scale goes into that layer's weight and
    the shift into its bias, which it gets if it had none (Jacob et al. 2018, arXiv 1712.05877, sec. 3.2). The products
    are taken in float64 and stored in the weight's dtype. Identity and Dropout leave the Sequentials as well. What
    cannot be folded stays: a BatchNorm elsewhere, or one without running statistics.

    Args:
        network: in eval mode; in training mode, BatchNorm takes its statistics from the batch.
    """
    assert not any(module.training for module in network.modules()), "folding needs a network in eval mode"
    network = copy.deepcopy(network)
    for sequential in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        layers: list[nn.Module] = []
        for layer in sequential:
            if isinstance(layer, (nn.Identity, nn.Dropout, nn.Dropout2d)):
                continue
            if layers and _foldable(layers[-1], layer):
                layers[-1] = _folded(layers[-1], layer)
            else:
                layers.append(layer)
        # In place: the Sequential's class may have a forward of its own, such as a residual block's.
        del sequential[:]
        sequential.extend(layers)
    return network


def _foldable(convolution: nn.Module, norm: nn.Module) -> bool:
    return (
        isinstance(convolution, (nn.Conv2d, nn.ConvTranspose2d))
        and isinstance(norm, (nn.BatchNorm2d, nn.SyncBatchNorm))
        and norm.running_mean is not None
    )


@torch.no_grad()
def _folded(
    convolution: nn.Conv2d | nn.ConvTranspose2d, norm: nn.BatchNorm2d | nn.SyncBatchNorm
) -> nn.Conv2d | nn.ConvTranspose2d:
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    if convolution.bias is not None:
        shift = shift + convolution.bias.double() * scale
    weight = convolution.weight.double()
    if isinstance(convolution, nn.ConvTranspose2d):  # (in, out / groups, side, side)
        groups = convolution.groups
        grouped = weight.unflatten(0, (groups, -1)) * scale.view(groups, 1, -1, 1, 1)
        weight = grouped.flatten(0, 1)
    else:  # (out, in / groups, side, side)
        weight = weight * scale.view(-1, 1, 1, 1)
    folded = copy.deepcopy(convolution)  # which may stand in two places, before two norms
    folded.weight = nn.Parameter(weight.to(convolution.weight.dtype), requires_grad=False)
    folded.bias = nn.Parameter(shift.to(convolution.weight.dtype), requires_grad=False)
    return folded
