"""Weight initialization of pix2pix (Isola et al. 2017, appendix 6.2)."""

from torch import nn


def initialize(network: nn.Module, *, std: float = 0.02) -> None:
    """In place: convolutions N(0, std), norm scales N(1, std), every bias 0."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, std)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, std)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
