"""Learning rates over the epochs."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def linear(
    optimizer: Optimizer,
    *,
    epochs: int,
    decay_fraction: float = 0.5,
    constant_epochs: int | None = None,
    decay_epochs: int | None = None,
    ahead: int = 0,
) -> LambdaLR:
    """Constant, then in a straight line towards zero; stepped at the end of each epoch.

    The reference's formula, factor(epoch) = 1 - max(0, epoch - n + 1) / (d + 1) with epochs counted from 0,
    n constant and d decaying ones. With 200 epochs and a fraction of 0.5 these are its 100 and 100.

    Args:
        epochs: length of the whole training, n + d.
        decay_fraction: share of it that decays, d / (n + d), 0 to 1.
        constant_epochs, decay_epochs: n and d themselves, in place of the share. One of them is enough.
        ahead: epochs that the schedule is ahead by: 1 is pytorch-CycleGAN-and-pix2pix since July 2020, which steps
            before an epoch.

    Raises:
        ValueError: the fraction is no fraction, or n and d do not add up to `epochs`.
    """
    if not 0.0 <= decay_fraction <= 1.0:
        raise ValueError(f"scheduler.decay_fraction={decay_fraction} is out of range: use 0 to 1")
    if decay_epochs is None:
        decay_epochs = round(epochs * decay_fraction) if constant_epochs is None else epochs - constant_epochs
    if constant_epochs is None:
        constant_epochs = epochs - decay_epochs
    if min(constant_epochs, decay_epochs) < 0 or constant_epochs + decay_epochs != epochs:
        raise ValueError(
            f"scheduler.constant_epochs={constant_epochs} and scheduler.decay_epochs={decay_epochs} do not divide "
            f"epochs={epochs}: make epochs their sum, or leave one of them out"
        )
    first = constant_epochs - ahead - 1  # of the decay
    return LambdaLR(optimizer, lambda epoch: 1.0 - max(0, epoch - first) / (decay_epochs + 1))


def cosine(optimizer: Optimizer, *, epochs: int) -> LambdaLR:
    """Half a period of a cosine, from the full rate to zero when training ends; stepped at the end of each epoch.

    factor(epoch) = (1 + cos(pi * epoch / epochs)) / 2 (Loshchilov and Hutter 2017, eq. 5), and 0 from there on:
    torch's CosineAnnealingLR climbs again, and keeps the old length when a run is resumed with more epochs.

    Args:
        epochs: length of the whole training.
    """
    return LambdaLR(optimizer, lambda epoch: 0.5 * (1.0 + math.cos(math.pi * min(epoch / epochs, 1.0))))
