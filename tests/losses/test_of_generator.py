"""One training step with all of it, against the step that is written down."""

from functools import partial

import pytest
import torch
from torch import nn

from p2p.batch import Batch
from p2p.losses.adversarial import LeastSquares, WassersteinGP
from p2p.losses.feature_matching import FeatureMatching
from p2p.losses.loss import Distance
from p2p.models.multi_scale import MultiScale
from tests.training.test_pix2pix import TinyGenerator, fit, pix2pix

LOSSES = {"feature_matching": FeatureMatching(weight=10.0), "l1": Distance(distance=nn.L1Loss(), weight=3.0)}


def step(tmp_path, **options):
    """A step of plain descent in float64: the model afterwards, its networks before, the pair, and what was logged."""
    torch.manual_seed(0)
    parts = TinyGenerator().double(), MultiScale(scales=2, layers=2, width=2).double()
    options = {"adversarial": LeastSquares(), "losses": LOSSES, "optimizer": partial(torch.optim.SGD, lr=0.5)} | options
    model = pix2pix(*parts, **options)
    before = [p.detach().clone() for p in model.generator.parameters()]
    a, b = torch.rand(2, 4, 3, 24, 24, dtype=torch.float64) * 2 - 1
    size = 4 // options.get("accumulate", 1)
    batches = [Batch(["x"] * size, *pair) for pair in zip(a.split(size), b.split(size), strict=True)]
    trainer = fit(model, batches, tmp_path, precision="64-true")
    return model, before, a, b, trainer.callback_metrics


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_generator_follows_the_updated_discriminator(accumulate, tmp_path):
    model, before, a, b, logged = step(tmp_path, accumulate=accumulate)
    weight, bias = (p.clone().requires_grad_() for p in before)
    fake = torch.tanh(torch.nn.functional.conv2d(a, weight, bias, padding=1))
    fakes, reals = (model.discriminator(a, image, activations=True) for image in (fake, b))  # it no longer changes
    gan = sum((scale[-1] - 1).square().mean() for scale in fakes)
    matching = sum(
        4 / 3 / 2 * (x - y.detach()).abs().mean()
        for ours, theirs in zip(fakes, reals, strict=True)
        for x, y in zip(ours[:3], theirs[:3], strict=True)
    )
    l1 = (fake - b).abs().mean()
    expected = torch.autograd.grad(gan + 10 * matching + 3 * l1, (weight, bias))
    for after, start, gradient in zip(model.generator.parameters(), before, expected, strict=True):
        torch.testing.assert_close(after, start - 0.5 * gradient, rtol=1e-5, atol=1e-7)  # activations are float32
    assert logged["train/G_gan"].item() == pytest.approx(gan.item(), rel=1e-5)
    assert logged["train/G_feature_matching"].item() == pytest.approx(matching.item(), rel=1e-5)


def test_wgangp_trains_several_scales(tmp_path):
    *_, logged = step(tmp_path, adversarial=WassersteinGP())
    assert all(value.isfinite() for value in logged.values())


def test_without_a_discriminator_there_is_nothing_to_match():
    with pytest.raises(ValueError, match=r"^losses\.feature_matching compares what the discriminator sees, and adv"):
        pix2pix(TinyGenerator(), None, adversarial=None, losses=LOSSES)
