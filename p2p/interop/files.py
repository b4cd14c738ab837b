"""What `_net_G.pth` and `_net_D.pth` of pytorch-CycleGAN-and-pix2pix, the reference, hold of a pair of networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from p2p.interop.reference import Architecture, Weights, recognize_discriminator, recognize_generator, to_reference
from p2p.models.lab import LabUNet


class NetworkFiles(NamedTuple):
    """The contents of both files.

    Attributes:
        weights: "G" -> its state dict, "D" -> its, if the reference has such a discriminator.
        generator: what `recognize_generator` finds.
        discriminator: the arguments that `recognize_discriminator` finds; None where "D" is left out.
        left_out: why it is.
    """

    weights: dict[str, Weights]
    generator: Architecture
    discriminator: dict[str, Any] | None
    left_out: str | None


def network_files(generator: nn.Module, discriminator: Callable[[], nn.Module | None], source: Path) -> NetworkFiles:
    """The files of two networks. A discriminator that the reference does not have is left out: translating needs none.

    Args:
        generator: without `ResizeConv2d`s, see `p2p.deploy.rewrite.fold_resize`.
        discriminator: returns it, or None if the run has none; if it raises a ValueError, it is left out.
        source: for messages.

    Raises:
        ValueError: the reference has no such generator.
    """
    weights = {"G": to_reference(generator)}
    found = recognize_generator(weights["G"], source)
    try:
        network = discriminator()
        if network is None:
            raise ValueError("the run has no discriminator")
        if isinstance(generator, LabUNet):
            raise ValueError("that of pytorch-CycleGAN-and-pix2pix judges L, a and b, and here it judges RGB")
        state = to_reference(network)
        into, out = found.arguments["in_channels"], found.arguments["out_channels"]
        judge = recognize_discriminator(state, source, input_channels=into, target_channels=out).arguments
        if not judge["conditional"] or judge["norm"] != found.arguments["norm"]:
            raise ValueError("pytorch-CycleGAN-and-pix2pix has only conditional ones with the norm of the generator")
    except ValueError as error:
        return NetworkFiles(weights, found, None, str(error))
    return NetworkFiles(weights | {"D": state}, found, judge, None)
