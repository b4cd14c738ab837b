"""The captured step against the eager one, through Lightning."""

import copy
import re
import subprocess
import sys
from functools import partial

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from p2p.batch import Batch
from p2p.losses.adversarial import LeastSquares, Vanilla, WassersteinGP
from p2p.losses.loss import Distance
from p2p.metrics import image
from p2p.models.patchgan import PatchGAN
from p2p.models.unet import UNet
from p2p.training.callbacks.ema import EMA
from p2p.training.pix2pix import Pix2Pix
from p2p.training.schedules import linear
from tests.conftest import ROOT

pytestmark = pytest.mark.gpu

LR = 2.0**-12  # in float32 what it is in float64


@pytest.fixture(autouse=True)
def repeatable(monkeypatch):
    """The same kernels each time: fp32 is fp32, and sums are added up in one order."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


class Watch(lightning.Callback):
    """The losses of every step, and whether it was replayed."""

    def __init__(self):
        self.losses, self.replayed = [], []

    def on_train_batch_end(self, trainer, pl_module, *rest):
        names = [name for name in trainer.callback_metrics if name.startswith("train/")]
        self.losses.append({name: trainer.callback_metrics[name].item() for name in sorted(names)})
        self.replayed.append(pl_module._captured is not None and pl_module._captured.recorded)


def batches(*sizes, side=64):
    """Smooth images: noise in, the same turned by 90 degrees out."""
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.rand(size, 3, side // 8, side // 8, generator=generator) * 2 - 1 for size in sizes]
    inputs = [nn.functional.interpolate(image, scale_factor=8, mode="bilinear") for image in inputs]
    return [Batch(["x"] * len(image), image, image.rot90(1, (2, 3)).contiguous()) for image in inputs]


def fit(data, *, capture, epochs=1, ckpt_path=None, callbacks=(), accelerator="gpu", dropout=0.0, lr=LR, **options):
    """Trains; returns the trainer and what was seen."""
    precision, decay = options.pop("precision", "32-true"), options.pop("decay", 0.0)
    lightning.seed_everything(0, verbose=False)
    model = Pix2Pix(
        losses={"l1": Distance(distance=nn.L1Loss())},
        metrics={"L1": image.l1()},
        optimizer=partial(torch.optim.Adam, lr=lr, betas=(0.5, 0.999), fused=True),
        scheduler=partial(linear, epochs=8, decay_fraction=decay),
        capture=capture,
        **{
            "adversarial": Vanilla(),
            "generator": UNet(image_size=64, width=8, dropout=dropout),
            "discriminator": PatchGAN(width=8, layers=2),
        }
        | options,
    )
    watch = Watch()
    trainer = lightning.Trainer(
        accelerator=accelerator,
        devices=1,
        precision=precision,
        max_epochs=epochs,
        callbacks=[*callbacks, watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        benchmark=False,
        log_every_n_steps=1,
    )
    trainer.fit(model, DataLoader(data, batch_size=None), ckpt_path=ckpt_path)
    return trainer, watch


def assert_equal_training(one, other, tolerance=1e-5):
    """Losses of every step and all weights and averages at the end."""
    for mine, theirs in zip(one[1].losses, other[1].losses, strict=True):
        assert mine == pytest.approx(theirs, rel=tolerance, abs=tolerance)
    assert_equal_weights(one[0], other[0], tolerance)


def assert_equal_weights(one, other, tolerance=1e-5):
    assert one.global_step == other.global_step
    mine, theirs = (trainer.lightning_module.state_dict() for trainer in (one, other))
    for name, value in mine.items():
        difference = (value.cpu().double() - theirs[name].cpu()).abs().max().item()
        assert difference <= tolerance, f"{name}: {difference}"


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("game", [Vanilla, LeastSquares, WassersteinGP, None])
def test_twenty_steps_equal_the_eager_ones_in_fp32(game, dropout):
    data = batches(*[2] * 20)
    options = {"adversarial": game() if game else None, "dropout": dropout}
    captured, eager = (fit(data, capture=capture, **options) for capture in (True, False))
    assert captured[1].replayed == [False] * 3 + [True] * 17
    assert not any(eager[1].replayed)
    assert len(captured[1].losses[0]) == (1 if game is None else 3)
    assert captured[0].global_step == 20
    # Gradients of gradients make more of rounding: 1e-5 and 5e-5 were seen.
    assert_equal_training(captured, eager, 2e-4 if game is WassersteinGP else 1e-5)
    start = fit(data[:1], capture=False, **options)[0].lightning_module.generator.down[0][1].weight
    assert (captured[0].lightning_module.generator.down[0][1].weight - start).abs().max() > 1e-3


@pytest.mark.parametrize(
    "options",
    [
        {"generator": UNet, "discriminator": PatchGAN(width=8, layers=2, norm="none", spectral_norm=True)},
        {"augment": ["color", "translation", "cutout"], "adversarial": LeastSquares(smoothing=0.1)},
    ],
    ids=["resize and spectral norm", "augment"],
)
def test_options_of_small_sets_can_be_recorded(options):
    """Draws are the same where the graph's random numbers follow on those of the steps before it."""
    runs = []
    for capture in (True, False):
        more = dict(options)
        if more.pop("generator", None):
            lightning.seed_everything(0, verbose=False)
            more["generator"] = UNet(image_size=64, width=8, dropout=0.0, resize_last=2)
            more["discriminator"] = copy.deepcopy(options["discriminator"])
        runs.append(fit(batches(*[2] * 12), capture=capture, **more))
    assert runs[0][1].replayed == [False] * 3 + [True] * 9
    assert_equal_training(*runs)


def test_the_weights_are_channels_last():
    trainer, _ = fit(batches(2), capture=False)
    weight = trainer.lightning_module.generator.down[1][1].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


def test_bf16_learns_as_eager_bf16_and_fp32_do():
    data = batches(4) * 150
    curves = {}
    for name, capture, precision in (
        ("captured", True, "bf16-mixed"),
        ("eager", False, "bf16-mixed"),
        ("fp32", False, "32-true"),
    ):
        losses = fit(data, capture=capture, precision=precision)[1].losses
        curves[name] = torch.tensor([step["train/G_l1"] for step in losses])
        assert curves[name][-20:].mean() < 0.6 * curves[name][:5].mean()  # it learns
    for name in ("eager", "fp32"):
        for part in (slice(40, 80), slice(110, 150)):
            assert curves["captured"][part].mean() == pytest.approx(curves[name][part].mean().item(), rel=0.15)


def test_dropout_draws_new_masks_in_every_replay():
    data = batches(2) * 12
    losses = [step["train/G_l1"] for step in fit(data, capture=True, dropout=0.5, lr=0.0)[1].losses]
    assert len(set(losses[4:])) == 8
    assert losses == [step["train/G_l1"] for step in fit(data, capture=True, dropout=0.5, lr=0.0)[1].losses]


def test_a_batch_that_is_not_full_runs_between_the_others():
    data = batches(4, 4, 4, 4, 4, 4, 3)
    captured, eager = (fit(data, capture=capture, epochs=3) for capture in (True, False))
    assert captured[0].global_step == 21
    assert_equal_training(captured, eager)


def test_images_of_another_size_are_said_and_right(capsys):
    data = batches(2, 2, 2, 2, 2, 2) + batches(2, 2, side=128)
    captured, eager = (fit(data, capture=capture, epochs=2) for capture in (True, False))
    assert capsys.readouterr().out.count("only steps of the first size are replayed") == 1
    assert_equal_training(captured, eager)


def test_the_learning_rate_follows_its_schedule():
    data = batches(*[2] * 4)
    captured, eager = (fit(data, capture=capture, epochs=6, decay=0.875) for capture in (True, False))
    assert_equal_training(captured, eager)
    rates = [group["lr"] for optimizer in captured[0].optimizers for group in optimizer.param_groups]
    assert all(isinstance(rate, float) and rate < 0.6 * LR for rate in rates)
    assert not any(group["capturable"] for optimizer in captured[0].optimizers for group in optimizer.param_groups)
    constant = fit(data, capture=True, epochs=6)
    mine, other = (run[0].lightning_module.generator.down[0][1].weight for run in (captured, constant))
    assert (mine - other).abs().max() > 1e-4


def test_the_norm_of_gradients_is_clipped():
    data = batches(*[2] * 10)
    captured, eager = (fit(data, capture=capture, clip_norm=0.01) for capture in (True, False))
    assert_equal_training(captured, eager)


def test_the_average_of_the_weights():
    data = batches(*[2] * 10)
    averages = [EMA(decay=0.9), EMA(decay=0.9)]
    for average, capture in zip(averages, (True, False), strict=True):
        fit(data, capture=capture, callbacks=[average])
    for name, value in averages[0]._average.items():
        torch.testing.assert_close(value, averages[1]._average[name], rtol=0, atol=1e-5)


def test_captured_eager_and_captured_again(tmp_path):
    data = batches(*[2] * 6)
    path = tmp_path / "last.ckpt"
    for epochs, capture in ((1, True), (2, False), (3, True)):
        trainer, _ = fit(data, capture=capture, epochs=epochs, decay=0.875, ckpt_path=path if epochs > 1 else None)
        trainer.save_checkpoint(path)
    assert torch.load(path, weights_only=True)["global_step"] == 18
    assert_equal_weights(trainer, fit(data, capture=False, epochs=3, decay=0.875)[0])


def test_from_the_gpu_to_the_cpu_and_back(tmp_path):
    data = batches(*[2] * 6)
    path = tmp_path / "last.ckpt"
    for epochs, accelerator in ((1, "gpu"), (2, "cpu"), (3, "gpu")):
        options = {"capture": "auto", "epochs": epochs, "accelerator": accelerator}
        trainer, watch = fit(data, ckpt_path=path if epochs > 1 else None, **options)
        assert watch.replayed[-1] == (accelerator == "gpu")
        trainer.save_checkpoint(path)
    # Not 1e-5: the CPU adds up in another order, and Adam makes steps of equal size from small gradients.
    whole = fit(data, capture=False, epochs=3)[0]
    assert trainer.global_step == whole.global_step == 18
    mine, theirs = (each.lightning_module.generator.down[0][1].weight for each in (trainer, whole))
    assert (mine - theirs).abs().mean() < 0.2 * LR


def fit_peeking():
    """A network that looks at its output's values, which a graph cannot."""

    class Peeking(UNet):
        def forward(self, x_NCHW):
            y_NCHW = super().forward(x_NCHW)
            return y_NCHW if y_NCHW.mean().item() < 2 else x_NCHW

    fit(batches(*[2] * 6), capture=True, generator=Peeking(image_size=64, width=8))


def test_what_cannot_be_recorded_is_a_sentence():
    """In a process of its own, because torch does not recover from it."""
    code = "from tests.gpu.test_capture import fit_peeking; fit_peeking()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert re.search(r"ValueError: .*cannot be recorded as a CUDA graph \(.*\): use model\.capture=false", last)


def test_compiled_networks_train_as_others_and_keep_their_names():
    data = batches(*[2] * 8)
    compiled, eager = fit(data, capture=True, compile=True), fit(data, capture=False)
    assert compiled[1].replayed[-1]
    for mine, theirs in zip(compiled[1].losses, eager[1].losses, strict=True):
        assert mine == pytest.approx(theirs, rel=0.02)  # fused kernels add up in another order
    names = [run[0].lightning_module.state_dict().keys() for run in (compiled, eager)]
    assert names[0] == names[1]
