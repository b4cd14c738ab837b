"""Check that pix2pix can use an optimizer and a schedule, and lay out the optimizer's state."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


def check_optimization(optimizer: Callable[..., Optimizer], scheduler: Callable[[Optimizer], LRScheduler]) -> None:
    """Make both for a weight of no network: what they refuse is said before any work.

    Raises:
        ValueError: a number is out of range.
    """
    try:
        made = optimizer([nn.Parameter(torch.zeros(1))])
    except ValueError as error:
        raise ValueError(f"optimizer: {error}") from error
    try:
        scheduler(made)
    except ValueError as error:
        words = str(error)
        raise ValueError(words if words.startswith("scheduler.") else f"scheduler: {words}") from error


def lay_out_like_weights(optimizer: Optimizer) -> None:
    """Its averages in the order of the weights in memory, which the checkpoint of another device may not have.

    Fused optimizers go through both in the order of memory.
    """
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape and value.stride() != weight.stride():
                state[name] = torch.empty_like(weight).copy_(value)


def as_list(found: object) -> list:
    """Lightning hands out the only optimizer or scheduler by itself, several in a list."""
    return found if isinstance(found, list) else [found]
