"""The sums of pix2pixHD over layers and scales against its formula."""

import pytest
import torch

from p2p.losses.adversarial import Hinge, LeastSquares, Vanilla, WassersteinGP
from p2p.losses.feature_matching import FeatureMatching
from p2p.losses.scales import over_scales


@pytest.mark.parametrize("layers", [2, 4])
def test_feature_matching_is_the_formula(layers):
    """4 / layers * 1 / scales * the sum of mean absolute differences; logits, the last, do not count."""
    torch.manual_seed(0)
    fake, real = ([[torch.randn(2, 3, 8 >> n, 8) for n in range(layers + 1)] for _ in range(2)] for _ in "fr")
    expected = sum(
        4 / layers / 2 * (x - y).abs().sum().item() / x.numel()
        for ours, theirs in zip(fake, real, strict=True)
        for x, y in zip(ours[:-1], theirs[:-1], strict=True)
    )
    assert FeatureMatching()(fake, real).item() == pytest.approx(expected, rel=1e-5)
    assert FeatureMatching()(real, real).item() == 0
    low = [[x.bfloat16() for x in scale] for scale in fake]
    assert FeatureMatching()(low, real).dtype == torch.float32


@pytest.mark.parametrize("game", [Vanilla, LeastSquares, Hinge, WassersteinGP])
def test_losses_of_scales_are_added_up(game):
    """By scale, or the finest, which has most logits, would decide alone."""
    torch.manual_seed(0)
    real, fake = ([torch.randn(1, 1, side, side) for side in (9, 2)] for _ in "rf")
    losses = game()
    expected = losses.generator_loss(fake[0]) + losses.generator_loss(fake[1])
    torch.testing.assert_close(over_scales(losses.generator_loss, fake), expected)
    expected = losses.discriminator_loss(real[0], fake[0]) + losses.discriminator_loss(real[1], fake[1])
    torch.testing.assert_close(over_scales(losses.discriminator_loss, real, fake), expected)
    torch.testing.assert_close(over_scales(losses.generator_loss, fake[1]), losses.generator_loss(fake[1]))


def test_the_slope_of_a_critic_of_several_scales_is_that_of_the_sum_of_its_verdicts():
    """Scales of <w, x> and <2 w, x>, mean over 1 and 4 logits: together the slope 3 w."""
    w = torch.tensor([0.3, 0.4], dtype=torch.float64).view(1, 2, 1, 1)

    def critic(a, b):
        verdict = (w * b).sum(1, keepdim=True)
        return [verdict, 2 * verdict.expand(-1, -1, 2, 2)]

    a, real, fake = torch.rand(3, 5, 2, 1, 1, dtype=torch.float64)
    penalty = WassersteinGP(weight=7.0).penalty(critic, a, real, fake)
    assert penalty.item() == pytest.approx(7 * (3 * 0.5 - 1) ** 2, rel=1e-12)
