"""Feature matching: the difference between the discriminator's activations for output and target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch.nn import functional as F

Activations: TypeAlias = Sequence[Sequence[torch.Tensor]]  # of each scale: of each layer, and the logits at the end


class FeatureMatching:
    """The mean absolute difference of the discriminator's activations (pix2pixHD: Wang et al. 2018, eq. 3).

    As in the authors' code, the layers of a scale are added up, times 4 / their number, which is 1 for the 4 that a
    PatchGAN of 3 layers has; of several scales it is the mean. Logits do not count. It trains the generator alone.

    Args:
        weight: against the adversarial loss, `lambda_feat` there; None stands for model.lambda_l1.
    """

    def __init__(self, *, weight: float | None = 10.0):
        self.weight = weight

    def __call__(self, fake: Activations, real: Activations) -> torch.Tensor:
        """Activations of output and target by the same discriminator -> a scalar, float32."""
        scales = [self._of_a_scale(seen[:-1], wanted[:-1]) for seen, wanted in zip(fake, real, strict=True)]
        return torch.stack(scales).mean()

    def _of_a_scale(self, fake: Sequence[torch.Tensor], real: Sequence[torch.Tensor]) -> torch.Tensor:
        layers = [F.l1_loss(seen.float(), wanted.float()) for seen, wanted in zip(fake, real, strict=True)]
        return 4.0 * torch.stack(layers).mean()
