"""The benchmark of pix2pixHD's networks: that both sides take the same step, and that its settings fit together."""

import copy
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from benchmarks import high_resolution
from benchmarks.plain_hd import BETAS, LR, plain_step
from p2p.batch import Batch
from p2p.losses.adversarial import LeastSquares
from p2p.losses.feature_matching import FeatureMatching
from p2p.models.multi_scale import MultiScale
from p2p.models.resnet import ResNet
from tests.training.test_pix2pix import fit, pix2pix


def test_the_plain_loop_takes_the_steps_of_p2p(tmp_path):
    torch.manual_seed(0)
    generator = ResNet(image_size=32, width=4, blocks=1, norm="instance", dropout=0.0)
    discriminator = MultiScale(scales=2, layers=1, width=4)
    batches = [Batch(["x"], *(torch.rand(2, 1, 3, 32, 32) * 2 - 1)) for _ in range(3)]
    step = plain_step(generator, discriminator, torch.device("cpu"))
    start = copy.deepcopy((generator.state_dict(), discriminator.state_dict()))
    theirs = [step(batch) for batch in batches]

    ours = []
    adam = partial(torch.optim.Adam, lr=LR, betas=BETAS)
    options = {"adversarial": LeastSquares(), "losses": {"feature_matching": FeatureMatching()}, "optimizer": adam}
    model = pix2pix(copy.deepcopy(generator), copy.deepcopy(discriminator), **options)
    for network, weights in zip((model.generator, model.discriminator), start, strict=True):
        network.load_state_dict(weights)
    model.log_dict = lambda losses, **_: ours.append(losses)
    fit(model, batches, tmp_path)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == {f"train/{name}": pytest.approx(value.item(), rel=1e-4) for name, value in other.items()}


def test_rows_and_trainings_compose():
    hd = [*high_resolution.HD, high_resolution.MATCHING]
    first, *_, last = high_resolution.RECIPES.values()
    recipes = [[*high_resolution.HD_GLOBAL, *overrides] for overrides in (first, last)]
    found = [high_resolution.composed(overrides) for overrides in (hd, *recipes)]
    assert "freeze" not in found[0].callbacks
    assert [(cfg.discriminator.get("scales"), *cfg.losses) for cfg in found[1:]] == [
        (None, "l1"),
        (2, "feature_matching"),
    ]
    assert {cfg.discriminator.norm for cfg in found} == {"instance"}  # or they would differ in more than they say


def test_the_pace_ends_the_training(monkeypatch):
    """Steps of a second and three images: after the first six, and by fours."""
    now, pace = iter(range(100)), high_resolution.Pace(seconds=7.5)
    monkeypatch.setattr(high_resolution.time, "perf_counter", lambda: 4 * next(now))
    trainer, model = SimpleNamespace(should_stop=False), SimpleNamespace(device=torch.device("cpu"))
    for step in range(14):
        assert not trainer.should_stop
        pace.on_train_batch_end(trainer, model, None, Batch(["x"] * 3, torch.zeros(3)), step)
    assert trainer.should_stop and pace.rate == 3.0
