"""Normalization layers by name."""

from torch import nn


def norm_layer(norm: str, channels: int) -> nn.Module:
    """The layer for `channels` channels: "batch", "instance" (without affine weights, as the reference) or "none"."""
    match norm:
        case "batch":
            return nn.BatchNorm2d(channels)
        case "instance":
            return nn.InstanceNorm2d(channels)
        case "none":
            return nn.Identity()
    raise ValueError(f"norm={norm} is not known: use batch, instance or none")
