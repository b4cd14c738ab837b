"""Learning rates over the epochs."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def linear(optimizer: Optimizer, *, epochs: int, decay_fraction: float = 0.5) -> LambdaLR:
    """Constant, then in a straight line towards zero; stepped at the end of each epoch.

    The reference's formula, factor(epoch) = 1 - max(0, epoch - n + 1) / (d + 1) with epochs counted from 0,
    n constant and d decaying ones. With 200 epochs and a fraction of 0.5 these are the paper's 100 and 100.

    Args:
        epochs: length of the whole training, n + d.
        decay_fraction: share of it that decays, d / (n + d), 0 to 1.
    """
    if not 0.0 <= decay_fraction <= 1.0:
        raise ValueError(f"scheduler.decay_fraction={decay_fraction} is out of range: use 0 to 1")
    decaying = round(epochs * decay_fraction)
    constant = epochs - decaying
    return LambdaLR(optimizer, lambda epoch: 1.0 - max(0, epoch - constant + 1) / (decaying + 1))
