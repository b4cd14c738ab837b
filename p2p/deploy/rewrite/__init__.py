"""What changes between the generator that trains and the one that is deployed, each function in a file of its own.

What a norm means in it is decided before, by `p2p.models.inference_view`. All of these are exact: in float64 their
outputs agree with the network's own to 1e-10, so that they can change nothing but the time. They take a network in eval
mode and leave it as it is.
"""

from collections.abc import Sequence

import torch
from torch import nn

from p2p.batch import from_frames
from p2p.deploy.rewrite.downsample import SpaceToDepthConv2d, space_to_depth
from p2p.deploy.rewrite.fold import fold_batch_norm
from p2p.deploy.rewrite.frames import Frames
from p2p.deploy.rewrite.taps import drop_dead_taps
from p2p.deploy.rewrite.upsample import SubPixelConv2d, sub_pixel

__all__ = [
    "Frames",
    "SpaceToDepthConv2d",
    "SubPixelConv2d",
    "apply",
    "check_names",
    "drop_dead_taps",
    "fold_batch_norm",
    "space_to_depth",
    "sub_pixel",
]

CHOICES = {  # in the order in which they suit each other
    "taps": drop_dead_taps,
    "last": lambda network, _: sub_pixel(network, only_last=True),
    "all": lambda network, _: sub_pixel(network),
    "blocks": lambda network, _: space_to_depth(network),
}


def check_names(names: Sequence[str]) -> None:
    """Raise a ValueError for a rewrite that `apply` does not have."""
    for name in names:
        if name not in CHOICES:
            raise ValueError(f"backend.rewrites has {name}, which is not known: use some of {', '.join(CHOICES)}")


def apply(network: nn.Module, names: Sequence[str], example: torch.Tensor) -> nn.Module:
    """The network after the rewrites that its backend runs faster.

    Args:
        network: in eval mode, on the CPU; of `Frames`, the network inside is rewritten.
        names: of "taps" (`drop_dead_taps`), "last" or "all" (`sub_pixel`) and "blocks" (`space_to_depth`).
        example: an input of the network, of the size that is to come.

    Raises:
        ValueError: another name.
    """
    check_names(names)
    if isinstance(network, Frames):
        return Frames(apply(network.network, names, from_frames(example[:1])))
    for name, rewrite in CHOICES.items():
        if name in names:
            network = rewrite(network, example[:1])
    return network
