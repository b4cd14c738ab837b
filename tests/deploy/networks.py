"""Networks that hide no mistake, for the tests of rewrites."""

import torch
from torch import nn

from p2p.models.init import initialize


def randomized(network: nn.Module, *, gain: float = 0.2) -> nn.Module:
    """In float64 and eval mode, every number of every layer far from what would hide a mistake."""
    torch.manual_seed(0)
    initialize(network, gain=gain)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.bias is not None:
            nn.init.normal_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.2, 2.0)
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias)
    return network.double().eval()


def count(network: nn.Module, *kinds: type) -> int:
    return sum(isinstance(module, kinds) for module in network.modules())
