"""pix2pixHD's networks and losses in the captured step, and what checkpointing saves."""

from functools import partial

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from p2p.deploy.backends import eager, torch_tensorrt, triton
from p2p.losses.adversarial import LeastSquares
from p2p.losses.feature_matching import FeatureMatching
from p2p.losses.perceptual import Perceptual
from p2p.metrics import image
from p2p.models.init import initialize
from p2p.models.local_enhancer import LocalEnhancer
from p2p.models.multi_scale import MultiScale
from p2p.training.callbacks.freeze import Freeze
from p2p.training.pix2pix import Pix2Pix
from p2p.training.schedules import linear
from tests.gpu.test_capture import Watch, batches, repeatable  # noqa: F401
from tests.losses.test_perceptual import vgg19_file

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def random_vgg19(monkeypatch):
    monkeypatch.setattr("p2p.losses.perceptual._fetched", vgg19_file)


def fit(data, *, capture, checkpointing=False, callbacks=(), epochs=1, precision="32-true", width=8, perceptual=True):
    """Trains both networks; returns what was seen, and the bytes that it took at most."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    lightning.seed_everything(0, verbose=False)
    model = Pix2Pix(
        generator=LocalEnhancer(width=width, downsamplings=2, blocks=2, image_size=64, checkpointing=checkpointing),
        discriminator=MultiScale(scales=2, layers=2, width=8),
        adversarial=LeastSquares(),
        losses={"feature_matching": FeatureMatching()} | ({"perceptual": Perceptual(weight=0.1)} if perceptual else {}),
        metrics={"L1": image.l1()},
        optimizer=partial(torch.optim.Adam, lr=2e-4, betas=(0.5, 0.999), fused=True),
        scheduler=partial(linear, epochs=8, decay_fraction=0.0),
        capture=capture,
    )
    watch = Watch()
    trainer = lightning.Trainer(
        accelerator="gpu",
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
    trainer.fit(model, DataLoader(data, batch_size=None))
    return watch, torch.cuda.max_memory_allocated()


def assert_equal_losses(one, other, *, tolerance=5e-3):
    """Not weights: a bias before an instance norm has no gradient but rounding, which Adam's division makes larger."""
    for mine, theirs in zip(one.losses, other.losses, strict=True):
        assert mine == pytest.approx(theirs, rel=tolerance)
    name = "train/G_feature_matching"
    assert one.losses[0][name] != pytest.approx(one.losses[-1][name], rel=tolerance)


def test_captured_steps_equal_the_eager_ones():
    data = batches(*[2] * 12)
    (captured, _), (eagerly, _) = fit(data, capture=True), fit(data, capture=False)
    assert captured.replayed == [False] * 3 + [True] * 9 and not any(eagerly.replayed)
    assert_equal_losses(captured, eagerly)


def test_checkpointing_is_captured_and_takes_less_memory():
    data, options = batches(*[4] * 8, side=256), {"capture": True, "width": 32, "perceptual": False}
    (plain, much), (frugal, little) = (fit(data, checkpointing=each, **options) for each in (False, True))
    assert frugal.replayed == plain.replayed == [False] * 3 + [True] * 5
    assert_equal_losses(frugal, plain)
    assert little < 0.8 * much


def test_it_is_recorded_again_when_the_frozen_part_is_trained():
    data = batches(*[2] * 6)
    freeze = {"callbacks": [Freeze(epochs=1, start="runs/default")], "epochs": 2}
    (captured, _), (eagerly, _) = (fit(data, capture=capture, **freeze) for capture in (True, False))
    assert captured.replayed == 2 * ([False] * 3 + [True] * 3)
    assert_equal_losses(captured, eagerly)


def test_in_bf16_it_is_captured_too():
    watch, _ = fit(batches(*[2] * 6), capture=True, checkpointing=True, precision="bf16-mixed")
    assert watch.replayed == [False] * 3 + [True] * 3
    assert all(value == value for losses in watch.losses for value in losses.values())


def generator():
    torch.manual_seed(0)
    network = LocalEnhancer(width=16, downsamplings=2, blocks=2, image_size=64)
    initialize(network, gain=0.2)
    return network.eval()


@pytest.mark.parametrize("backend", [eager, torch_tensorrt], ids=lambda backend: backend.__name__.rpartition(".")[2])
def test_backends_compute_it(backend, tmp_path):
    if reason := backend.unavailable():
        pytest.skip(reason)
    network, device = generator(), torch.device("cuda", 0)
    images = torch.rand(2, 3, 64, 96) * 2 - 1
    expected = network(images).detach()
    program = backend.export(network, images, tmp_path, min_batch=2, max_batch=2)
    run = backend.load(program, tmp_path, device=device)
    output = run(images.to(device, getattr(torch, program.dtype))).float().cpu()
    psnr = 10 * torch.log10(4 / nn.functional.mse_loss(output, expected))
    assert psnr > 40


def test_the_kernels_refuse_it_in_one_sentence(tmp_path):
    if reason := triton.unavailable():
        pytest.skip(reason)
    with pytest.raises(ValueError, match=r"^backend=triton cannot be used, because its kernels compute only U-Nets"):
        triton.export(generator(), torch.zeros(1, 3, 64, 64), tmp_path)
