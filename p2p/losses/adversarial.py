"""What the discriminator and the generator play for."""

import torch
from torch import nn
from torch.nn import functional as F


class Vanilla(nn.Module):
    """Binary cross-entropy on logits (Goodfellow et al. 2014; Isola et al. 2017, sec. 3.1 and 3.3).

    The generator maximizes log D(G(x)) rather than minimizing log(1 - D(G(x))), and the discriminator's loss
    is halved, which slows it against the generator.
    """

    def discriminator_loss(self, real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
        """Logits for real and for generated images, any shape -> the mean loss, a scalar."""
        return 0.5 * (_cross_entropy(fake_logits, 0.0) + _cross_entropy(real_logits, 1.0))

    def generator_loss(self, fake_logits: torch.Tensor) -> torch.Tensor:
        """Logits for generated images, any shape -> the mean loss, a scalar."""
        return _cross_entropy(fake_logits, 1.0)


def _cross_entropy(logits: torch.Tensor, label: float) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))
