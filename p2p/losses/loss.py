"""What the generator is trained by beside the game: any number of losses, each of one file and one YAML."""

from __future__ import annotations

from collections.abc import Callable
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
