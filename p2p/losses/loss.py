"""Losses of the generator beside the adversarial one: any number of them, each of one file and one YAML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch


class Loss(Protocol):
    """A loss of the generator's output. One that is an nn.Module is moved to the device of the training.

    It is no part of the model: its weights are neither trained nor saved in checkpoints.

    Attributes:
        weight: of it against the adversarial loss; None stands for model.lambda_l1.
    """

    weight: float | None

    def __call__(self, fake_NCHW: torch.Tensor, target_NCHW: torch.Tensor, input_NCHW: torch.Tensor) -> torch.Tensor:
        """The output, what it should look like, and what it was made from, in [-1, 1] -> a scalar, lower is better.

        It is called inside autocast and recorded as a CUDA graph, so it must not read values back from the GPU.
        """


class Distance:
    """A loss of torch's between the output and its target: L1 (Isola et al. 2017, eq. 3), L2, Huber or another.

    Args:
        distance: (output, target) -> a scalar, such as `torch.nn.L1Loss()`.
        weight: see `Loss`.
    """

    def __init__(self, *, distance: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], weight: float | None = None):
        self.distance = distance
        self.weight = weight

    def __call__(self, fake_NCHW: torch.Tensor, target_NCHW: torch.Tensor, input_NCHW: torch.Tensor) -> torch.Tensor:
        """Their distance, a scalar."""
        return self.distance(fake_NCHW, target_NCHW)


def weights_of(losses: Mapping[str, object], *, lambda_l1: float) -> dict[str, float]:
    """The weight of each.

    Args:
        losses: by name.
        lambda_l1: of those that have none of their own.

    Raises:
        ValueError: a loss is none, its weight or name cannot be, or lambda_l1 is below 0.
    """
    if "gan" in losses:
        raise ValueError("losses.gan would be logged as the adversarial loss is: give it another name")
    weights = {}
    for name, loss in losses.items():
        if not hasattr(loss, "weight"):
            raise ValueError(
                f"losses.{name} is a {type(loss).__name__}, which has no weight: give its class one, or name it as"
                " the distance of p2p.losses.loss.Distance, as conf/losses/l2.yaml does"
            )
        weights[name] = lambda_l1 if loss.weight is None else loss.weight
        if not isinstance(weights[name], (int, float, torch.Tensor)):
            raise ValueError(
                f"losses.{name}.weight={loss.weight} is not valid: use a number, or null for that of model.lambda_l1"
            )
    if not lambda_l1 >= 0:  # also catches NaN
        raise ValueError(f"model.lambda_l1={lambda_l1} is too small: use 0 or more")
    return weights
