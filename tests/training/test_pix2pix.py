"""The training step against one that is written down from the paper, without modules, optimizers or Lightning."""

import csv
from functools import partial
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from p2p.batch import Batch
from p2p.losses.adversarial import Hinge, LeastSquares, Vanilla, WassersteinGP
from p2p.losses.loss import Distance
from p2p.metrics import image
from p2p.models.patchgan import PatchGAN
from p2p.models.unet import UNet
from p2p.training.pix2pix import Pix2Pix
from p2p.training.schedules import linear

LR, BETAS, EPS, LAMBDA = 1e-3, (0.5, 0.999), 1e-8, 100.0


class TinyGenerator(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return torch.tanh(self.conv(x))


class TinyDiscriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(6, 1, 4, stride=2)

    def forward(self, a, b):
        return self.conv(torch.cat([a, b], 1))


def pix2pix(generator, discriminator, **options):
    parts = {
        "adversarial": Vanilla(),
        "losses": {"l1": Distance(distance=nn.L1Loss())},
        "metrics": {"L1": image.l1(), "PSNR": image.psnr(), "SSIM": image.ssim()},
        "optimizer": partial(torch.optim.Adam, lr=LR, betas=BETAS, eps=EPS),
        "scheduler": partial(linear, epochs=1000, decay_fraction=0.0),
        "lambda_l1": LAMBDA,
    }
    return Pix2Pix(generator=generator, discriminator=discriminator, **(parts | options))


def fit(model, batches, tmp_path, *, val=None, **options):
    trainer = lightning.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **{"max_epochs": 1, "enable_checkpointing": False, "enable_progress_bar": False, "logger": False} | options,
    )
    trainer.fit(model, DataLoader(batches, batch_size=None), val)
    return trainer


def adam(parameters, gradients, state):
    """Algorithm 1 of Kingma and Ba 2015."""
    state["t"] += 1
    for i, gradient in enumerate(gradients):
        m = state["m"][i] = BETAS[0] * state["m"].get(i, 0) + (1 - BETAS[0]) * gradient
        v = state["v"][i] = BETAS[1] * state["v"].get(i, 0) + (1 - BETAS[1]) * gradient**2
        m, v = m / (1 - BETAS[0] ** state["t"]), v / (1 - BETAS[1] ** state["t"])
        parameters[i] = (parameters[i] - LR * m / (v.sqrt() + EPS)).detach().requires_grad_()


def bce(logits, real):
    probability = torch.sigmoid(logits)
    return -torch.log(probability if real else 1 - probability).mean()


def slope_of_a_tiny_discriminator(weight, bias):
    """That of the mean of its 7x7 logits in the pair: it is linear, so the slope is the same everywhere."""
    return F.conv_transpose2d(torch.full((1, 1, 7, 7), 1 / 49, dtype=torch.float64), weight, stride=2)


GAMES = {  # the discriminator's loss, the generator's
    Vanilla: (
        lambda real, fake, d: 0.5 * (bce(fake, False) + bce(real, True)),
        lambda fake: bce(fake, True),
    ),
    LeastSquares: (
        lambda real, fake, d: 0.5 * ((real - 1).square().mean() + fake.square().mean()),
        lambda fake: (fake - 1).square().mean(),
    ),
    Hinge: (
        lambda real, fake, d: (1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean(),
        lambda fake: -fake.mean(),
    ),
    WassersteinGP: (
        lambda real, fake, d: (
            fake.mean() - real.mean() + 10 * (slope_of_a_tiny_discriminator(*d).square().sum().sqrt() - 1).square()
        ),
        lambda fake: -fake.mean(),
    ),
}


@pytest.mark.parametrize("game", GAMES)
def test_d_then_g_step_equals_the_formulas_in_float64(game, tmp_path):
    torch.manual_seed(0)
    generator, discriminator = TinyGenerator().double(), TinyDiscriminator().double()
    model = pix2pix(generator, discriminator, adversarial=game())
    data = torch.rand(3, 2, 2, 3, 16, 16, dtype=torch.float64) * 2 - 1
    g = [p.detach().clone().requires_grad_() for p in generator.parameters()]
    d = [p.detach().clone().requires_grad_() for p in discriminator.parameters()]
    start = [p.detach().clone() for p in (*g, *d)]
    batches = [Batch(["x"] * 2, a, b) for a, b in data]
    fit(model, batches, tmp_path, precision="64-true")

    def judge(a, b):
        return F.conv2d(torch.cat([a, b], 1), *d, stride=2)

    loss_of_d, loss_of_g = GAMES[game]
    g_state, d_state = ({"t": 0, "m": {}, "v": {}} for _ in "gd")
    for a, b in data:
        fake = torch.tanh(F.conv2d(a, *g, padding=1))
        loss = loss_of_d(judge(a, b), judge(a, fake.detach()), d)
        adam(d, torch.autograd.grad(loss, d), d_state)
        loss = loss_of_g(judge(a, fake)) + LAMBDA * (fake - b).abs().mean()  # by the updated discriminator
        adam(g, torch.autograd.grad(loss, g), g_state)

    names = ["G weight", "G bias", "D weight", "D bias"]
    ours = [*generator.parameters(), *discriminator.parameters()]
    for name, after, expected, before in zip(names, ours, [*g, *d], start, strict=True):
        if name != "D bias" or game in (
            Vanilla,
            LeastSquares,
        ):  # else its gradient is 1 - 1: Adam steps by the rounding
            torch.testing.assert_close(after, expected, rtol=1e-9, atol=1e-12)
            assert not torch.allclose(after, before, atol=1e-4)


def test_global_step_counts_batches_and_the_rates_follow_the_schedule(tmp_path):
    model = pix2pix(TinyGenerator(), TinyDiscriminator())
    model._scheduler = partial(linear, epochs=3, decay_fraction=1.0)
    batches = [Batch(["x"], *torch.rand(2, 1, 3, 16, 16)) for _ in range(3)]
    trainer = fit(model, batches, tmp_path, max_epochs=2)
    assert trainer.global_step == 6
    assert [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers] == [pytest.approx(LR / 4)] * 2
    for name, network in (("lr/G", model.generator), ("lr/D", model.discriminator)):
        (config,) = (config for config in trainer.lr_scheduler_configs if config.name == name)
        assert config.scheduler.optimizer.param_groups[0]["params"][0] is next(network.parameters())


def test_without_a_game_there_is_no_discriminator(tmp_path):
    """The generator alone, against plain Adam on the distance."""
    torch.manual_seed(0)
    generator = TinyGenerator().double()
    model = pix2pix(
        generator, TinyDiscriminator().double(), adversarial=None, losses={"l2": Distance(distance=nn.MSELoss())}
    )
    g = [p.detach().clone().requires_grad_() for p in generator.parameters()]
    data = torch.rand(3, 2, 2, 3, 16, 16, dtype=torch.float64)
    trainer = fit(model, [Batch(["x"] * 2, a, b) for a, b in data], tmp_path, precision="64-true")
    state = {"t": 0, "m": {}, "v": {}}
    for a, b in data:
        loss = LAMBDA * (torch.tanh(F.conv2d(a, *g, padding=1)) - b).square().mean()
        adam(g, torch.autograd.grad(loss, g), state)
    for ours, expected in zip(generator.parameters(), g, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)
    assert not [name for name in model.state_dict() if name.startswith("discriminator")]
    assert len(trainer.optimizers) == 1
    assert trainer.global_step == 3
    assert {key for key in trainer.callback_metrics if key.startswith("train/")} == {"train/G_l2"}


class Ink(nn.Module):
    """How much darker than its input an output is, by a factor that is learnt elsewhere."""

    weight = 3.0

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, fake_NCHW, target_NCHW, input_NCHW):
        return (self.factor * (input_NCHW - fake_NCHW)).relu().mean()


def test_the_generator_minimizes_the_sum_of_its_losses_by_their_weights(tmp_path):
    """By descent at rate 1, a step is the gradient; what a loss holds is neither trained nor saved."""
    torch.manual_seed(0)
    generator, ink = TinyGenerator().double(), Ink()
    losses = {"l1": Distance(distance=nn.L1Loss()), "ink": ink, "l2": Distance(distance=nn.MSELoss(), weight=0.5)}
    options = {"optimizer": partial(torch.optim.SGD, lr=1.0), "lambda_l1": 7.0}
    model = pix2pix(generator, None, adversarial=None, losses=losses, **options)
    start = [p.detach().clone().requires_grad_() for p in generator.parameters()]
    a, b = torch.rand(2, 2, 3, 16, 16, dtype=torch.float64) * 2 - 1
    trainer = fit(model, [Batch(["x"] * 2, a, b)], tmp_path, precision="64-true")
    fake = torch.tanh(F.conv2d(a, *start, padding=1))
    l1, darker, l2 = (fake - b).abs().mean(), 2 * (a - fake).clamp(min=0).mean(), (fake - b).square().mean()
    gradients = torch.autograd.grad(7.0 * l1 + 3.0 * darker + 0.5 * l2, start)
    for after, before, gradient in zip(generator.parameters(), start, gradients, strict=True):
        torch.testing.assert_close(after, before - gradient, rtol=1e-9, atol=1e-12)
    logged = {name: trainer.callback_metrics[f"train/G_{name}"].item() for name in losses}
    assert logged == pytest.approx({"l1": l1.item(), "ink": darker.item(), "l2": l2.item()}, rel=1e-6)
    assert ink.factor.item() == 2.0
    assert all(name.startswith("generator.") for name in model.state_dict())


def test_a_loss_is_not_logged_as_the_game():
    with pytest.raises(ValueError, match=r"losses\.gan would be logged as the adversarial loss is"):
        pix2pix(TinyGenerator(), TinyDiscriminator(), losses={"gan": Ink()})


def test_what_is_no_loss_or_no_metric_is_named():
    for options, message in (
        ({"losses": {"mse": nn.MSELoss()}}, r"^losses\.mse is a MSELoss, which has no weight: give its class one, or"),
        (
            {"losses": {"mine": Distance(distance=nn.L1Loss(), weight="x")}},
            r"^losses\.mine\.weight=x is not valid: use a",
        ),
        ({"metrics": {"mse": nn.MSELoss()}}, r"^metrics\.mse is a MSELoss: use a torchmetrics\.Metric$"),
    ):
        with pytest.raises(ValueError, match=message):
            pix2pix(TinyGenerator(), TinyDiscriminator(), **options)


def test_without_any_loss_there_is_nothing_to_learn():
    for options in ({"losses": {}}, {"lambda_l1": 0.0}):
        with pytest.raises(ValueError, match="leave nothing to learn from"):
            pix2pix(TinyGenerator(), TinyDiscriminator(), adversarial=None, **options)


@pytest.mark.parametrize("adversarial", [Vanilla(), None])
def test_the_plateau_goes_by_val_l1(adversarial, tmp_path):
    """A generator that does not learn stands still from the second epoch on, one that learns goes on at full rate."""
    a, b = torch.rand(2, 2, 3, 16, 16)
    scheduler = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, factor=0.5, patience=1, threshold=0.0)
    batches = [Batch(["x", "y"], a, b)]
    for lr, epochs, expected in ((0.0, 6, 0.5**2), (1e-3, 6, 1.0)):
        options = {"adversarial": adversarial, "scheduler": scheduler, "lambda_l1": 1e4}
        model = pix2pix(TinyGenerator(), TinyDiscriminator(), **options)
        model.make_optimizer = lambda parameters, lr=lr: torch.optim.Adam(
            [{"params": list(parameters)}, {"params": [nn.Parameter(torch.zeros(1))], "lr": 1.0}], lr=lr
        )
        val = DataLoader(batches, batch_size=None)
        trainer = fit(model, batches, tmp_path, val=val, max_epochs=epochs)
        assert [optimizer.param_groups[1]["lr"] for optimizer in trainer.optimizers] == [expected] * len(
            trainer.optimizers
        )


def test_the_generator_plays_against_the_updated_discriminator_under_autocast(tmp_path):
    """torch.autocast by default keeps 16-bit copies of weights, which the discriminator's step would make stale."""
    torch.manual_seed(0)
    discriminator = TinyDiscriminator()
    model = pix2pix(TinyGenerator(), discriminator, optimizer=partial(torch.optim.Adam, lr=0.1))
    a, b = torch.rand(2, 1, 3, 16, 16)
    fake = model.generator(a).detach()
    stale = bce(discriminator(a, fake), True).item()
    trainer = fit(model, [Batch(["x"], a, b)], tmp_path, precision="bf16-mixed")
    updated = bce(discriminator(a, fake), True).item()
    assert abs(updated - stale) > 0.2 * stale
    assert trainer.callback_metrics["train/G_gan"].item() == pytest.approx(updated, rel=0.02)


def test_it_can_overfit_one_pair(tmp_path):
    lightning.seed_everything(0, verbose=False)
    model = pix2pix(UNet(image_size=32, width=8, dropout=0.0), PatchGAN(width=8, layers=1))
    coarse = torch.rand(2, 1, 3, 4, 4) * 2 - 1
    a, b = (F.interpolate(image, size=32, mode="bilinear") for image in coarse)
    before = F.l1_loss(model(a), b).item()
    fit(model, [Batch(["x"], a, b)] * 150, tmp_path)
    model.eval()
    assert F.l1_loss(model(a), b).item() < 0.15 * before


def test_validation_sees_each_image_alone_if_training_did():
    torch.manual_seed(0)
    images = torch.rand(3, 3, 32, 32)
    for options, alone in (({"batch_size": 1}, True), ({"batch_size": 4}, False), ({"norm_stats": "running"}, False)):
        model = pix2pix(UNet(image_size=32, width=4), PatchGAN(width=4), **options)
        assert model._norm_stats == ("instance" if alone else "running")
        together = model(images)
        torch.testing.assert_close(together, torch.cat([model(image[None]) for image in images]))
        model.generator.train()(images * 0.3 + 0.2)  # moves the running averages
        assert torch.allclose(model(images), together) == alone


@pytest.mark.parametrize("norm_stats", ["instance", "running"])
def test_scores_do_not_depend_on_how_many_are_validated_together(norm_stats):
    torch.manual_seed(0)
    images = torch.rand(2, 6, 3, 32, 32) * 2 - 1
    model = pix2pix(UNet(image_size=32, width=4), PatchGAN(width=4), norm_stats=norm_stats)
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    scores = []
    for size in (1, 2, 6):
        parts = zip(images[0].split(size), images[1].split(size), strict=True)
        batches = [Batch(["x"] * size, a, b) for a, b in parts]
        scores += trainer.validate(model, DataLoader(batches, batch_size=None), verbose=False)
    for each in scores[1:]:
        assert each == pytest.approx(scores[0], rel=1e-5)


def test_the_last_step_of_an_epoch_is_logged(tmp_path):
    """Of five steps, every tenth: without more, an epoch would log no loss at all."""
    model, logger = pix2pix(TinyGenerator(), TinyDiscriminator()), CSVLogger(tmp_path)
    batches = [Batch(["x"], *torch.rand(2, 1, 3, 16, 16)) for _ in range(5)]
    fit(model, batches, tmp_path, logger=logger, max_epochs=2, log_every_n_steps=10)
    rows = list(csv.DictReader((Path(logger.log_dir) / "metrics.csv").open()))
    assert [(row["epoch"], row["step"]) for row in rows] == [("0", "4"), ("1", "9")]  # counted from 0, the tenth once
    assert all(float(row[f"train/{name}"]) for name in ("D", "G_gan", "G_l1") for row in rows)


def test_scores_equal_their_formulas(tmp_path):
    """L1 and PSNR by hand, SSIM of scikit-image's definition for equal images, identity beside them."""
    a, b = torch.rand(2, 4, 3, 32, 32) * 2 - 1
    model = pix2pix(nn.Identity(), TinyDiscriminator())
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    loader = DataLoader([Batch(["x", "y"], a[:2], b[:2]), Batch(["z"], a[2:3], b[2:3])], batch_size=None)
    (scores,) = trainer.validate(model, loader, verbose=False)
    psnr = [10 * torch.log10(4 / ((x - y) ** 2).mean()).item() for x, y in zip(a[:3], b[:3], strict=True)]
    assert scores["val/L1"] == pytest.approx((a[:3] - b[:3]).abs().mean().item(), rel=1e-5)
    assert scores["val/PSNR"] == pytest.approx(sum(psnr) / 3, rel=1e-5)
    assert scores["unchanged/PSNR"] == pytest.approx(scores["val/PSNR"])
    assert abs(scores["val/SSIM"]) < 0.1  # independent noise


def small_networks():
    torch.manual_seed(0)
    norm = {"norm": "instance", "width": 4}
    return UNet(image_size=32, dropout=0.0, **norm).double(), PatchGAN(layers=1, **norm).double()


def parameters_of(model):
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_accumulated_batches_equal_one_large_batch(tmp_path):
    a, b = torch.rand(2, 10, 3, 32, 32, dtype=torch.float64) * 2 - 1
    ends = []
    for size, accumulate in ((4, 1), (2, 2), (1, 4)):  # the last step has 2 images
        model = pix2pix(*small_networks(), accumulate=accumulate)
        torch.manual_seed(1)
        before = parameters_of(model)
        batches = [Batch(["x"] * len(a[i : i + size]), a[i : i + size], b[i : i + size]) for i in range(0, 10, size)]
        trainer = fit(model, batches, tmp_path, precision="64-true")
        assert trainer.global_step == 3
        assert all(not torch.equal(x, y) for x, y in zip(before, model.parameters(), strict=True) if x.dim() > 1)
        ends.append(parameters_of(model))
    for other in ends[1:]:
        for ours, expected in zip(other, ends[0], strict=True):
            # A bias before an instance norm has no gradient but rounding, which Adam's division makes larger.
            torch.testing.assert_close(ours, expected, rtol=1e-7, atol=1e-8)


def test_the_gradient_of_each_network_is_clipped(tmp_path):
    """With plain descent at rate 1, a step is as long as the gradient."""
    batches = [Batch(["x"], *torch.rand(2, 1, 3, 16, 16))]
    for clip_norm in (None, 1e-3):
        model = pix2pix(TinyGenerator(), TinyDiscriminator(), clip_norm=clip_norm)
        model.make_optimizer = partial(torch.optim.SGD, lr=1.0)
        before = [parameters_of(network) for network in (model.generator, model.discriminator)]
        fit(model, batches, tmp_path)
        for old, network in zip(before, (model.generator, model.discriminator), strict=True):
            moved = torch.cat([(x - y).flatten() for x, y in zip(old, network.parameters(), strict=True)]).norm()
            assert moved > 1e-2 if clip_norm is None else moved.item() == pytest.approx(clip_norm, rel=1e-2)


@pytest.mark.parametrize(
    "option", [{"accumulate": 0}, {"clip_norm": 0.0}, {"lambda_l1": -1}, {"lambda_l1": float("nan")}]
)
def test_bad_options_are_named(option):
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=rf"model\.{name}={value} is too small"):
        pix2pix(TinyGenerator(), TinyDiscriminator(), **option)
