"""Adversarial losses of the discriminator and the generator."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn
from torch.nn import functional as F

from p2p.losses.scales import over_scales


class Adversarial(Protocol):
    """The game between the two: a loss for each, and for some games a penalty on the discriminator.

    Attributes:
        differentiates_twice: whether the penalty takes the gradient of a gradient, which torch.compile cannot.
    """

    differentiates_twice: bool = False

    def discriminator_loss(self, real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
        """Logits for real and for generated images, any shape -> the mean loss, a scalar."""

    def generator_loss(self, fake_logits: torch.Tensor) -> torch.Tensor:
        """Logits for generated images, any shape -> the mean loss, a scalar."""

    def penalty(
        self, discriminator: nn.Module, input_NCHW: torch.Tensor, real_NCHW: torch.Tensor, fake_NCHW: torch.Tensor
    ) -> torch.Tensor | float:
        """What the discriminator pays beside its loss; nothing unless a game says otherwise.

        Args:
            discriminator: (input, image) -> logits.
            input_NCHW: what both images were made from, in [-1, 1].
            real_NCHW, fake_NCHW: real and generated images, detached, in [-1, 1].
        """
        return 0.0


class Vanilla(Adversarial):
    """Binary cross-entropy on logits (Goodfellow et al. 2014; Isola et al. 2017, sec. 3.1 and 3.3).

    The generator maximizes log D(G(x)) rather than minimizing log(1 - D(G(x))), and the discriminator's loss
    is halved, which slows it against the generator.

    Args:
        smoothing: how far below 1 the discriminator's target for real images is (Salimans et al. 2016, sec. 3.4).
    """

    def __init__(self, *, smoothing: float = 0.0):
        self.real = real_label(smoothing)

    def discriminator_loss(self, real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
        """(BCE(fake, 0) + BCE(real, 1 - smoothing)) / 2."""
        return 0.5 * (_cross_entropy(fake_logits, 0.0) + _cross_entropy(real_logits, self.real))

    def generator_loss(self, fake_logits: torch.Tensor) -> torch.Tensor:
        """BCE(fake, 1)."""
        return _cross_entropy(fake_logits, 1.0)


class LeastSquares(Adversarial):
    """LSGAN: the squared distance of the logits from 0 for fake and 1 for real (Mao et al. 2017, eq. 9).

    As in pytorch-CycleGAN-and-pix2pix, the discriminator's loss is halved and the generator's is not.

    Args:
        smoothing: see `Vanilla`.
    """

    def __init__(self, *, smoothing: float = 0.0):
        self.real = real_label(smoothing)

    def discriminator_loss(self, real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
        """(mean(fake^2) + mean((real - 1 + smoothing)^2)) / 2."""
        return 0.5 * (_mean(fake_logits**2) + _mean((real_logits - self.real) ** 2))

    def generator_loss(self, fake_logits: torch.Tensor) -> torch.Tensor:
        """mean((fake - 1)^2)."""
        return _mean((fake_logits - 1.0) ** 2)


class Hinge(Adversarial):
    """Logits beyond -1 for fake and 1 for real cost the discriminator nothing (Lim and Ye 2017; Miyato et al. 2018)."""

    def discriminator_loss(self, real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
        """mean(max(0, 1 + fake)) + mean(max(0, 1 - real))."""
        return _mean(F.relu(1.0 + fake_logits)) + _mean(F.relu(1.0 - real_logits))

    def generator_loss(self, fake_logits: torch.Tensor) -> torch.Tensor:
        """-mean(fake)."""
        return -_mean(fake_logits)


class WassersteinGP(Adversarial):
    """WGAN-GP: the critic estimates how far generated pairs are from real ones (Gulrajani et al. 2017, eq. 3).

    The critic's verdict on a pair is the mean of its logits, so it is the slope of that mean that is held at 1.
    One critic step is taken for each generator step, as everywhere in pix2pix, and not five.

    Args:
        weight: of the gradient penalty, lambda in the paper; 0 leaves it out.
    """

    def __init__(self, *, weight: float = 10.0):
        self.weight = weight
        self.differentiates_twice = weight != 0

    def discriminator_loss(self, real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
        """mean(fake) - mean(real)."""
        return _mean(fake_logits) - _mean(real_logits)

    def generator_loss(self, fake_logits: torch.Tensor) -> torch.Tensor:
        """-mean(fake)."""
        return -_mean(fake_logits)

    def penalty(
        self, discriminator: nn.Module, input_NCHW: torch.Tensor, real_NCHW: torch.Tensor, fake_NCHW: torch.Tensor
    ) -> torch.Tensor | float:
        """weight * mean((|slope| - 1)^2), the slope taken at random points between the real and the generated pair.

        A pair is what the critic sees: the input, which both have in common, counts as well if it is conditional.
        """
        if self.weight == 0:
            return 0.0
        share = torch.rand(len(real_NCHW), 1, 1, 1, dtype=real_NCHW.dtype, device=real_NCHW.device)
        between = torch.lerp(fake_NCHW.to(real_NCHW.dtype), real_NCHW, share)
        pair = (input_NCHW.detach().requires_grad_(), between.detach().requires_grad_())
        with torch.autocast(real_NCHW.device.type, enabled=False):  # squares of slopes underflow in 16 bits
            verdicts = over_scales(lambda logits: logits.flatten(1).mean(dim=1), discriminator(*pair))
            # Materialized: an unconditional critic has no slope in the input.
            slopes = torch.autograd.grad(verdicts.sum(), pair, create_graph=True, materialize_grads=True)
            norms = torch.cat([slope.flatten(1) for slope in slopes], dim=1).norm(dim=1)
            return self.weight * (norms - 1.0).square().mean()


def real_label(smoothing: float) -> float:
    """1 - smoothing.

    Raises:
        ValueError: it is out of range.
    """
    if not 0.0 <= smoothing < 1.0:
        raise ValueError(f"adversarial.smoothing={smoothing} is out of range: use 0 to below 1")
    return 1.0 - smoothing


def _cross_entropy(logits: torch.Tensor, label: float) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def _mean(values: torch.Tensor) -> torch.Tensor:
    return values.mean(dtype=torch.promote_types(values.dtype, torch.float32))  # 16 bits would round what is logged
