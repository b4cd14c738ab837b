import urllib.error

import lightning
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import MeanAbsoluteError

from p2p.batch import Batch
from p2p.training.callbacks.perceptual import Perceptual
from tests.training.test_pix2pix import TinyDiscriminator, TinyGenerator, fit, pix2pix

EXACT = 1e-9  # relative, in float64


class Features(nn.Module):
    """uint8 (N, 3, H, W) -> float64 (N, 6): mean and square of each channel."""

    num_features = 6

    def forward(self, images):
        assert images.dtype == torch.uint8
        images = images.double() / 255
        return torch.cat([images.mean(dim=(2, 3)), images.square().mean(dim=(2, 3))], dim=1)


def frechet(x, y):
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2) (Dowson and Landau 1982)."""
    c1, c2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    values, vectors = np.linalg.eigh(c1)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ c2 @ root).clip(0)).sum()
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(c1) + np.trace(c2) - 2 * cross


def loader(count, channels=3):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, count, channels, 16, 16, generator=generator) * 2 - 1
    return DataLoader([Batch(["x"], a[None], b[None]) for a, b in zip(*images, strict=True)], batch_size=None)


def frames(images):
    return ((torch.cat(images) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


class Outputs(lightning.Callback):
    """The outputs of the latest validation, and what has been logged after each."""

    def __init__(self):
        self.logged = []

    def on_validation_start(self, *rest):
        self.images = []

    def on_validation_batch_end(self, trainer, pl_module, outputs, *rest):
        self.images.append(outputs)

    def on_validation_end(self, trainer, pl_module):
        self.logged.append({name for name in trainer.callback_metrics if name in ("val/FID", "val/LPIPS")})


def test_fid_and_lpips_equal_their_formulas(tmp_path, monkeypatch):
    """LPIPS with the mean absolute difference in place of its network."""
    lpips = "torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity"
    monkeypatch.setattr(lpips, lambda net_type: MeanAbsoluteError())
    before = torch.get_rng_state()
    callback, watch = Perceptual(every_n_epochs=2, fid=Features()), Outputs()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(0)
    model, pairs = pix2pix(TinyGenerator(), TinyDiscriminator()), loader(24)
    trainer = fit(model, list(pairs), tmp_path, val=pairs, max_epochs=2, callbacks=[callback, watch])
    assert watch.logged == [set(), {"val/FID", "val/LPIPS"}]
    targets = [batch.target_NCHW for batch in pairs]
    expected = frechet(*(Features()(frames(images)).numpy() for images in (targets, watch.images)))
    assert expected > 1e-3
    assert callback._fid.compute().item() == pytest.approx(expected, rel=EXACT)
    assert trainer.callback_metrics["val/FID"].item() == pytest.approx(expected, rel=1e-6)
    distance = torch.stack([(a - b).abs().mean() for a, b in zip(watch.images, targets, strict=True)]).mean()
    assert trainer.callback_metrics["val/LPIPS"].item() == pytest.approx(distance.item(), rel=1e-5)


def test_without_network_a_sentence_says_so(monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("torchmetrics.image.lpip._NoTrainLpips", offline)
    with pytest.raises(ValueError, match=r"callbacks\.perceptual\.lpips cannot be fetched .*no route.*lpips=null"):
        Perceptual(fid=None)
    with pytest.raises(ValueError, match="nothing to compute"):
        Perceptual(fid=None, lpips=None)


def test_one_pair_is_too_few_and_grey_is_taken(tmp_path):
    callback = Perceptual(every_n_epochs=1, fid=Features(), lpips=None)
    model, pairs = pix2pix(TinyGenerator(), TinyDiscriminator()), loader(1)
    with pytest.raises(ValueError, match="two validation pairs or more"):
        fit(model, list(pairs), tmp_path, val=pairs, callbacks=[callback])
    callback = Perceptual(every_n_epochs=1, fid=Features(), lpips=None)
    callback._active = True
    for index, batch in enumerate(loader(3, channels=1)):
        callback.on_validation_batch_end(None, model, batch.input_NCHW, batch, index)
    assert callback._fid.compute() > 0
    (batch,) = loader(1, channels=5)
    with pytest.raises(ValueError, match="images of 1 or 3 channels, and these have 5: leave perceptual out"):
        callback.on_validation_batch_end(None, model, batch.input_NCHW, batch, 0)
