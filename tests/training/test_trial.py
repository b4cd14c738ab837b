"""What users write themselves is called once before training: a mistake is one sentence, and nothing else changes."""

import random
import re

import lightning
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import Metric

from p2p.batch import Batch
from p2p.losses.adversarial import Vanilla
from p2p.losses.feature_matching import FeatureMatching
from p2p.metrics import image
from p2p.models.multi_scale import MultiScale
from p2p.models.patchgan import PatchGAN
from p2p.training.trial import try_parts
from tests.training.test_pix2pix import TinyGenerator, pix2pix

JUDGE = PatchGAN(layers=1, width=2)
BATCH = Batch(["x", "y"], *torch.rand(2, 2, 3, 16, 16))


class Restless(nn.Module):
    """A loss that draws, and counts its calls."""

    weight = 1.0

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, fake_NCHW, target_NCHW, input_NCHW):
        self.calls += 1
        drawn = random.random() + np.random.rand() + torch.rand(())
        return drawn * (fake_NCHW - target_NCHW).abs().mean()


class Scores(Metric):
    """A metric that gives what it is told to."""

    def __init__(self, score):
        super().__init__()
        self.score = score

    def update(self, output_NCHW, target_NCHW):
        pass

    def compute(self):
        if self.score is None:
            raise RuntimeError("one batch is too few")
        return self.score


class OfOne(Scores):
    def update(self, output_NCHW):
        pass


class Judge(nn.Module):
    def __init__(self, give):
        super().__init__()
        self.give = give

    def forward(self, input_NCHW, image_NCHW):
        return self.give(image_NCHW)


class Game(Vanilla):
    def generator_loss(self, fake_logits):
        return fake_logits


def attempt(**parts):
    parts = {
        "losses": {},
        "metrics": {},
        "adversarial": Vanilla(),
        "discriminator": JUDGE,
    } | parts
    try_parts(BATCH, BATCH.input_NCHW, count=2, **parts)


def lost(images):
    raise KeyError("logits")


MISTAKES = [
    ("losses", lambda f, t, i: (f - t).abs(), "losses.mine gives a Tensor of shape (2, 3, 16, 16): it has to give"),
    ("losses", lambda f, t, i: 0.5, "losses.mine gives a float: it has to give a tensor of one number"),
    ("losses", lambda f, t: f, "losses.mine fails when it is called as (output, target, input): TypeError"),
    ("metrics", OfOne(1), "metrics.mine fails when it is called as update(outputs, targets): TypeError"),
    ("metrics", Scores(torch.zeros(3)), "metrics.mine gives a Tensor of shape (3,)"),
    ("discriminator", nn.Conv2d(6, 1, 3), "discriminator fails when it is called as (input, image): TypeError"),
    (
        "discriminator",
        Judge(lost),
        "discriminator fails when it is called as (input, image): KeyError: 'logits'",
    ),
    (
        "discriminator",
        Judge(lambda images: [[images]]),
        "discriminator gives a list: it has to give a tensor of logits",
    ),
    ("adversarial", Game(), "adversarial.generator_loss gives a Tensor of shape (2, 1,"),
]


@pytest.mark.parametrize(("part", "value", "said"), MISTAKES)
def test_a_mistake_is_one_sentence(part, value, said):
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        attempt(**{part: {"mine": value} if part in ("losses", "metrics") else value})


def test_a_discriminator_without_activations_is_named_where_a_loss_compares_them():
    said = "discriminator fails when it is called as (input, image, activations=True): TypeError"
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        attempt(losses={"seen": FeatureMatching()}, discriminator=Judge(lambda images: images))
    attempt(losses={"seen": FeatureMatching()}, discriminator=MultiScale(scales=1, layers=1, width=2))


def test_a_discriminator_of_ours_says_by_itself_that_images_are_too_small():
    small = r"^discriminator\.scales=2 of 3 layers need images of 48 pixels and got 16: use [^;]*$"
    for losses in ({}, {"seen": FeatureMatching()}):
        with pytest.raises(ValueError, match=small):
            attempt(losses=losses, discriminator=MultiScale(width=2))


def test_a_score_that_needs_more_than_one_batch_is_let_pass():
    attempt(metrics={"mine": Scores(None), "ssim": image.ssim()})


def test_it_is_called_with_as_many_images_as_in_training():
    """A batch of validation can be too large for a loss that keeps what its gradient needs."""
    seen = []
    losses = {"mine": lambda *images: [seen.append(len(each)) for each in images] and images[0].mean()}
    parts = {"losses": losses, "metrics": {}, "adversarial": Vanilla(), "discriminator": JUDGE}
    try_parts(BATCH, BATCH.input_NCHW, count=1, **parts)
    assert seen == [1, 1, 1]


def test_the_call_leaves_no_trace():
    """Neither in random generators, nor in what the loss counts, the discriminator averages, or a metric adds up."""
    loss, judge, l1 = Restless(), PatchGAN(layers=1, width=2), image.l1()
    weights = {name: value.clone() for name, value in judge.state_dict().items()}
    draws = []
    for trial in (False, True):
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        if trial:
            attempt(losses={"mine": loss}, metrics={"l1": l1}, discriminator=judge)
        draws.append((random.random(), np.random.rand(), torch.rand(()).item()))
    assert draws[0] == draws[1]
    assert loss.calls == 0 and l1.update_count == 0 and judge.training
    assert all(torch.equal(value, weights[name]) for name, value in judge.state_dict().items())


def test_the_first_validation_makes_the_call():
    model = pix2pix(TinyGenerator(), nn.Conv2d(6, 1, 3))
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    with pytest.raises(ValueError, match=r"^discriminator fails when it is called as"):
        trainer.validate(model, DataLoader([BATCH], batch_size=None))
