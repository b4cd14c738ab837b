"""Stop a training whose losses or weights are NaN or infinite."""

from __future__ import annotations

import torch
from torch import nn

from p2p.models.finite import first_not_finite

ADVICE = "no checkpoint was replaced: use a lower optimizer.lr, or model.clip_norm=1"


class LossWatch:
    """Finds out that a loss was NaN or infinite, at no cost of a step on a GPU.

    Each step adds its losses to one scalar, on the device and inside a captured graph. NaN and infinity stay in a
    sum, so it is enough to read it now and then, where the host waits for the GPU anyway.

    Args:
        device: where the losses are.
    """

    def __init__(self, device: torch.device | str):
        self._sum = torch.zeros((), device=device)
        self._failure: str | None = None

    @torch.no_grad()
    def add(self, losses: dict[str, torch.Tensor]) -> None:
        """The scalars of one step."""
        for loss in losses.values():
            self._sum.add_(loss)

    def check(self, losses: dict[str, torch.Tensor], *, step: int, epoch: int) -> None:
        """Read the sum, which waits for a GPU.

        Args:
            losses: of the last step, by name.
            step, epoch: how many steps there were, and which epoch this is, counted from 1.

        Raises:
            ValueError: a loss was not finite since the last check.
        """
        if self._sum.isfinite():
            return
        bad = [f"{name} is {loss.item()}" for name, loss in losses.items() if not loss.isfinite()]
        what = " and ".join(bad) or "a loss was not finite"
        self._failure = f"training stopped at step {step}, in epoch {epoch}, because {what}; {ADVICE}"
        self.check_again()

    def check_again(self) -> None:
        """Raise the ValueError of a check that failed, without looking at the sum."""
        if self._failure is not None:
            raise ValueError(self._failure)


def check_weights(network: nn.Module, *, name: str) -> None:
    """Raise a ValueError if a weight or a buffer of the network is NaN or infinite."""
    bad = first_not_finite(network.state_dict())
    if bad is not None:
        raise ValueError(f"training stopped because the weights of the {name} are not finite ({bad}); {ADVICE}")
