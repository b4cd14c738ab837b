"""Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174): less memory in training, for one more forward pass."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def check_checkpointing(*, norm: str, dropout: float) -> None:
    """Raise a ValueError if computing a layer twice would change what is trained."""
    if norm == "batch":
        raise ValueError(
            "generator.checkpointing=true computes layers twice, and norm=batch would average each batch twice: use"
            " generator.norm=instance or none"
        )
    if dropout:  # its state would have to be kept, which cannot be recorded as a CUDA graph
        raise ValueError(
            "generator.checkpointing=true computes layers twice, and dropout would differ: use generator.dropout=0"
        )


def forward(layers: nn.Sequential, x_NCHW: torch.Tensor, *, checkpointing: bool) -> torch.Tensor:
    """One layer after another.

    Args:
        layers: of a generator.
        x_NCHW: into the first.
        checkpointing: keep for the gradients the inputs of `segments` alone, and compute the rest again when needed.
    """
    if not (checkpointing and layers.training and torch.is_grad_enabled()):
        for layer in layers:
            x_NCHW = layer(x_NCHW)
        return x_NCHW
    for segment in segments(layers):
        x_NCHW = checkpoint(segment, x_NCHW, use_reentrant=False, preserve_rng_state=False)
    return x_NCHW


def segments(layers: nn.Sequential) -> Iterator[nn.Sequential]:
    """Parts that end behind a ReLU or a residual block, which is a Sequential of its own."""
    part: list[nn.Module] = []
    for layer in layers:
        part.append(layer)
        if isinstance(layer, (nn.ReLU, nn.Sequential)):
            yield nn.Sequential(*part)
            part = []
    if part:
        yield nn.Sequential(*part)
