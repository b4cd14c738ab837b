"""Each game against its formula, and the gradient penalty against critics whose slope is known."""

import math

import pytest
import torch
from torch import nn

from p2p.losses.adversarial import Hinge, LeastSquares, Vanilla, WassersteinGP

REAL, FAKE = [0.3, -2.0, 1.5, 4.0], [-0.7, 0.2, 3.0]  # of different sizes: each has a mean of its own


def mean(function, logits):
    return sum(map(function, logits)) / len(logits)


def log_sigmoid(x):
    return math.log(1 / (1 + math.exp(-x)))


GAMES = {  # the discriminator's loss, the generator's
    Vanilla: (
        -(mean(log_sigmoid, REAL) + mean(lambda x: log_sigmoid(-x), FAKE)) / 2,
        -mean(log_sigmoid, FAKE),
    ),
    LeastSquares: (
        (mean(lambda x: (x - 1) ** 2, REAL) + mean(lambda x: x**2, FAKE)) / 2,
        mean(lambda x: (x - 1) ** 2, FAKE),
    ),
    Hinge: (
        mean(lambda x: max(0, 1 - x), REAL) + mean(lambda x: max(0, 1 + x), FAKE),
        -mean(float, FAKE),
    ),
    WassersteinGP: (mean(float, FAKE) - mean(float, REAL), -mean(float, FAKE)),
}


@pytest.mark.parametrize("game", GAMES)
def test_losses_equal_their_formulas_in_float64(game):
    real, fake = (torch.tensor(logits, dtype=torch.float64) for logits in (REAL, FAKE))
    loss_d, loss_g = game().discriminator_loss(real_logits=real, fake_logits=fake), game().generator_loss(fake)
    assert loss_d.dtype == loss_g.dtype == torch.float64
    assert loss_d.item() == pytest.approx(GAMES[game][0], rel=1e-12)
    assert loss_g.item() == pytest.approx(GAMES[game][1], rel=1e-12)


def test_smoothing_lowers_the_discriminators_target_alone():
    real, fake = (torch.tensor(logits, dtype=torch.float64) for logits in (REAL, FAKE))
    expected = {
        Vanilla: -(
            mean(lambda x: 0.9 * log_sigmoid(x) + 0.1 * log_sigmoid(-x), REAL) + mean(lambda x: log_sigmoid(-x), FAKE)
        ),
        LeastSquares: mean(lambda x: (x - 0.9) ** 2, REAL) + mean(lambda x: x**2, FAKE),
    }
    for game, loss in expected.items():
        smooth = game(smoothing=0.1)
        assert smooth.discriminator_loss(real, fake).item() == pytest.approx(loss / 2, rel=1e-12)
        assert smooth.generator_loss(fake).item() == pytest.approx(GAMES[game][1], rel=1e-12)
        for value in (-0.1, 1.0):
            with pytest.raises(ValueError, match=rf"^adversarial\.smoothing={value} is out of range"):
                game(smoothing=value)


@pytest.mark.parametrize("game", GAMES)
def test_losses_of_16_bit_logits_are_float32(game):
    logits = torch.full((1, 1, 30, 30), 1.0)
    logits[..., 0, 0] = 10.0  # a mean of 1.01, which bfloat16 does not have
    for autocast in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            low, full = (game().generator_loss(x) for x in (logits.bfloat16(), logits))
        if autocast or game is not Vanilla:  # torch's cross-entropy answers in the type that it is asked in
            assert low.dtype == torch.float32
            torch.testing.assert_close(low, full, rtol=1e-3, atol=1e-4)


class Linear(nn.Module):
    """logit i of a pair = <weights i, (input, image)>: the slope of the mean logit is the mean of the weights."""

    def __init__(self, *, conditional, logits=6, scale=1.0):
        super().__init__()
        self.conditional = conditional
        channels = 3 + 2 * conditional
        self.weights = nn.Parameter(scale * torch.randn(logits, channels, 4, 4, dtype=torch.float64))

    def forward(self, a, b):
        seen = torch.cat([a, b], 1) if self.conditional else b
        return torch.einsum("nchw,lchw->nl", seen, self.weights)[:, None, None]


def images(count=5):
    torch.manual_seed(0)
    return torch.rand(count, 2, 4, 4).double(), *torch.rand(2, count, 3, 4, 4).double()


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("scale", [0.01, 1.0])  # slopes below 1 cost as well: two-sided
def test_penalty_of_a_linear_critic(conditional, scale):
    a, real, fake = images()
    critic = Linear(conditional=conditional, scale=scale)
    penalty = WassersteinGP(weight=7.0).penalty(critic, a, real, fake)
    slope = critic.weights.detach().mean(0)
    norm = slope.square().sum().sqrt()
    assert penalty.item() == pytest.approx(7.0 * (norm.item() - 1) ** 2, rel=1e-12)
    penalty.backward()  # d/dw of 7 (|mean w| - 1)^2
    expected = 7.0 * 2 * (norm - 1) * slope / norm / len(critic.weights)
    torch.testing.assert_close(critic.weights.grad, expected.expand_as(critic.weights), rtol=1e-10, atol=1e-12)


def test_the_slope_is_taken_between_real_and_fake():
    """D(x) = |x|^2 / 2 has the slope x: the penalty of x = share * real + (1 - share) * fake with shares in [0, 1]."""

    def quadratic(a, b):
        return b.square().sum((1, 2, 3), keepdim=True) / 2

    a = torch.zeros(1000, 1, 1, 1, dtype=torch.float64)
    real, fake = a + 3, a + 1
    torch.manual_seed(0)
    penalties = torch.stack(
        [WassersteinGP(weight=1.0).penalty(quadratic, a[:1], real[:1], fake[:1]).detach() for _ in range(1000)]
    )
    slopes = penalties.sqrt() + 1  # uniform from 1 to 3
    assert slopes.min() >= 1 and slopes.max() <= 3
    assert slopes.mean().item() == pytest.approx(2, abs=0.1)
    assert slopes.std().item() == pytest.approx(2 / 12**0.5, abs=0.05)
    together = WassersteinGP(weight=1.0).penalty(quadratic, a, real, fake)  # each image has a share of its own
    assert together.item() == pytest.approx(4 / 3, rel=0.1)  # the mean of s^2, s uniform from 0 to 2


def test_penalty_is_exact_under_autocast_and_leaves_no_trace():
    torch.manual_seed(0)
    critic = nn.Conv2d(5, 1, 3)
    a, real, fake = (image.float() for image in images())

    def judge(a, b):
        return critic(torch.cat([a, b], 1))

    full = WassersteinGP().penalty(judge, a, real, fake)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = WassersteinGP().penalty(judge, a, real, fake.bfloat16())
    torch.testing.assert_close(mixed, full, rtol=1e-6, atol=0)  # a linear critic: where it is asked does not matter
    assert mixed.dtype == torch.float32
    assert not any(image.requires_grad for image in (a, real, fake))
    assert critic.weight.grad is None


def test_a_flat_critic_has_a_finite_gradient():
    a, real, fake = images()
    critic = Linear(conditional=True, scale=0.0)
    penalty = WassersteinGP().penalty(critic, a, real, fake)
    assert penalty.item() == 10
    penalty.backward()
    assert critic.weights.grad.isfinite().all()


def test_only_wgangp_has_a_penalty():
    a, real, fake = images()
    for game in (Vanilla(), LeastSquares(), Hinge(), WassersteinGP(weight=0)):
        assert game.penalty(Linear(conditional=True), a, real, fake) == 0
