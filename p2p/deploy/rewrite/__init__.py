"""What changes between the generator that trains and the one that is deployed, each function in a file of its own.

What a norm means in it is decided before, by `p2p.models.inference_view`. All of these are exact: in float64 their
outputs agree with the network's own to 1e-10, so that they can change nothing but the time. They take a network in eval
mode and leave it as it is.
"""

from collections.abc import Sequence

from torch import nn

from p2p.deploy.rewrite.downsample import SpaceToDepthConv2d, space_to_depth
from p2p.deploy.rewrite.fold import fold_batch_norm
from p2p.deploy.rewrite.frames import Frames
from p2p.deploy.rewrite.resize import fold_resize
from p2p.deploy.rewrite.upsample import SubPixelConv2d, sub_pixel

__all__ = [
    "Frames",
    "SpaceToDepthConv2d",
    "SubPixelConv2d",
    "apply",
    "check_names",
    "fold_batch_norm",
    "fold_resize",
    "space_to_depth",
    "sub_pixel",
]

CHOICES = {"last": sub_pixel, "blocks": space_to_depth}


def check_names(names: Sequence[str]) -> None:
    """Raise a ValueError for a rewrite that `apply` does not have."""
    for name in names:
        if name not in CHOICES:
            raise ValueError(f"backend.rewrites has {name}, which is not known: use some of {', '.join(CHOICES)}")


def apply(network: nn.Module, names: Sequence[str]) -> nn.Module:
    """The network after the rewrites that its backend runs faster.

    Args:
        network: in eval mode, on the CPU; of `Frames`, the network inside is rewritten.
        names: of "last" (`sub_pixel`) and "blocks" (`space_to_depth`).

    Raises:
        ValueError: another name.
    """
    check_names(names)
    if isinstance(network, Frames):
        return Frames(apply(network.network, names))
    for name, rewrite in CHOICES.items():
        if name in names:
            network = rewrite(network)
    return network
