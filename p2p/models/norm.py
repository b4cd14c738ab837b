"""Normalization layers by name, and how wide a network is."""

from torch import nn


def check_width(width: int, *, network: str) -> None:
    """Raise a ValueError if a `network`, "generator" or "discriminator", is to have no channels."""
    if width < 1:
        raise ValueError(f"{network}.width={width} is too small: use 1 or more")


def norm_layer(norm: str, channels: int) -> nn.Module:
    """The layer for `channels` channels: "batch", "instance" or "none".

    That of "instance" has no affine weights, as in pytorch-CycleGAN-and-pix2pix.
    """
    match norm:
        case "batch":
            return nn.BatchNorm2d(channels)
        case "instance":
            return nn.InstanceNorm2d(channels)
        case "none":
            return nn.Identity()
    raise ValueError(f"norm={norm} is not known: use batch, instance or none")
