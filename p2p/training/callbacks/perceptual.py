"""Scores that look at images as a network does: FID over all outputs, LPIPS for each."""

from __future__ import annotations

from collections.abc import Callable

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torchmetrics import Metric

from p2p.batch import Batch, to_frames
from p2p.losses.perceptual import rgb


class Perceptual(Callback):
    """Logs val/FID and val/LPIPS of the validation pairs, lower is better.

    FID (Heusel et al. 2017) compares the distributions of outputs and targets. Its figures are comparable only
    between equal numbers of images, and far too high for fewer than some 2,000. LPIPS (Zhang et al. 2018) is the
    mean distance of an output from its own target. Both fetch pretrained weights when they are used first.

    Args:
        every_n_epochs: epochs between two evaluations.
        fid: 64, 192, 768 or 2048 features of Inception v3 (2048 is the usual figure), or a network from uint8
            (N, 3, H, W) to features (N, F); None leaves FID out.
        lpips: "alex" (the usual figure), "vgg" or "squeeze"; None leaves LPIPS out.

    Raises:
        ValueError: the weights cannot be fetched, or nothing is to be computed.
        ModuleNotFoundError: torch-fidelity, which holds Inception v3, is not installed.
    """

    def __init__(self, *, every_n_epochs: int = 10, fid: int | nn.Module | None = 2048, lpips: str | None = "alex"):
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        if fid is None and lpips is None:
            raise ValueError("callbacks.perceptual has nothing to compute: set its fid or its lpips")
        self._every_n_epochs = every_n_epochs
        self._active = False
        self._fid = self._lpips = None
        with torch.random.fork_rng():  # the networks draw weights before they are filled
            if fid is not None:
                self._fid = _fetch("fid", lambda: FrechetInceptionDistance(feature=fid))
            if lpips is not None:
                self._lpips = _fetch("lpips", lambda: LearnedPerceptualImagePatchSimilarity(net_type=lpips))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start over, if it is time to."""
        due = (trainer.current_epoch + 1) % self._every_n_epochs == 0
        self._active = due and trainer.state.fn == TrainerFn.FITTING
        if self._active:
            for metric in self._metrics().values():
                metric.to(pl_module.device).reset()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: torch.Tensor,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Show the networks the outputs of `validation_step` and the targets."""
        if not self._active:
            return
        output, target = (rgb(each.float(), group="callbacks") for each in (outputs, batch.target_NCHW))
        with torch.autocast(pl_module.device.type, enabled=False):
            if self._fid is not None:
                self._fid.update(to_frames(target).permute(0, 3, 1, 2).contiguous(), real=True)
                self._fid.update(to_frames(output).permute(0, 3, 1, 2).contiguous(), real=False)
            if self._lpips is not None:
                self._lpips.update(output.clamp(-1.0, 1.0), target.clamp(-1.0, 1.0))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log; torchmetrics has put the parts of several processes together.

        Raises:
            ValueError: fewer than two validation pairs, of which FID is not defined.
        """
        if not self._active:
            return
        try:
            scores = {f"val/{name}": metric.compute() for name, metric in self._metrics().items()}
        except RuntimeError as error:
            if "More than one sample" not in str(error):
                raise
            raise ValueError(
                "FID needs two validation pairs or more: add some, or set callbacks.perceptual.fid=null"
            ) from error
        pl_module.log_dict({name: score.float() for name, score in scores.items()})

    def _metrics(self) -> dict[str, Metric]:
        metrics = {"FID": self._fid, "LPIPS": self._lpips}
        return {name: metric for name, metric in metrics.items() if metric is not None}


def _fetch(key: str, make: Callable[[], Metric]) -> Metric:
    try:
        return make()
    except OSError as error:  # what urllib raises without network
        raise ValueError(
            f"the pretrained network of callbacks.perceptual.{key} cannot be fetched ({error}): connect this machine"
            f" once, or set callbacks.perceptual.{key}=null"
        ) from error
