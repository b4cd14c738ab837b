"""Weight initialization of pix2pix (Isola et al. 2017, appendix 6.2) and the reference's other choices."""

from torch import nn


def initialize(network: nn.Module, *, init: str = "normal", gain: float = 0.02) -> None:
    """In place: convolutions by `init`, scales of batch norm N(1, gain), every bias 0.

    Args:
        network: modules of any other kind are left alone.
        init: "normal", N(0, gain), the paper's; "xavier" (Glorot and Bengio 2010, normal); "kaiming" (He et
            al. 2015, normal, by fan-in); or "orthogonal" (Saxe et al. 2014).
        gain: standard deviation for "normal", factor for "xavier" and "orthogonal"; "kaiming" has its own.

    Raises:
        ValueError: another `init`.
    """
    if init not in ("normal", "xavier", "kaiming", "orthogonal"):
        raise ValueError(f"model.init={init} is not known: use normal, xavier, kaiming or orthogonal")
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            match init:
                case "normal":
                    nn.init.normal_(module.weight, 0.0, gain)
                case "xavier":
                    nn.init.xavier_normal_(module.weight, gain)
                case "kaiming":
                    nn.init.kaiming_normal_(module.weight)
                case "orthogonal":
                    nn.init.orthogonal_(module.weight, gain)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, gain)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
