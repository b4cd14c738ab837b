"""A loss of logits at one or several scales."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch

Logits: TypeAlias = torch.Tensor | Sequence[torch.Tensor]  # of all scales, if there are several


def over_scales(loss: Callable[..., torch.Tensor], *logits: Logits) -> torch.Tensor:
    """The loss of logits; of several scales the sum of their losses, as in pix2pixHD (Wang et al. 2018, eq. 2).

    Args:
        loss: tensors of logits -> a scalar.
        logits: its arguments, all of one discriminator.
    """
    if isinstance(logits[0], torch.Tensor):
        return loss(*logits)
    return sum(loss(*of_a_scale) for of_a_scale in zip(*logits, strict=True))
