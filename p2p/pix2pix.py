"""pix2pix as a LightningModule: one generator, one discriminator, two steps a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from lightning import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanAbsoluteError, MetricCollection
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from p2p.batch import Batch
from p2p.deploy.rewrite import NormStats, inference_view, resolve_norm_stats
from p2p.losses.adversarial import Vanilla
from p2p.models.init import initialize


class Pix2Pix(LightningModule):
    """Paired image-to-image translation with a conditional GAN (Isola et al. 2017).

    Args:
        generator: (N, C, H, W) in [-1, 1] -> (N, C', H, W) in [-1, 1].
        discriminator: (input, image) -> logits of any shape.
        adversarial: the game between the two.
        reconstruction: distance of an output from its target, such as `torch.nn.L1Loss()`.
        optimizer: parameters -> optimizer; called once for each network.
        scheduler: optimizer -> learning-rate scheduler, stepped at the end of each epoch.
        lambda_l1: weight of `reconstruction` against the adversarial loss; 100 in the paper.
        norm_stats: BatchNorm's statistics in validation and deployment, see `p2p.deploy.rewrite`.
        batch_size: of the training batches; decides what norm_stats="auto" means.
        accumulate: batches that make one step together, as if they were one of so many times the size, in the
            memory of one. Their images are generated twice: the discriminator must step on all of them before
            the generator sees it.
        clip_norm: largest norm of each network's gradient; None leaves it as it is.
    """

    def __init__(
        self,
        *,
        generator: nn.Module,
        discriminator: nn.Module,
        adversarial: Vanilla,
        reconstruction: nn.Module,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[[Optimizer], LRScheduler],
        lambda_l1: float = 100.0,
        norm_stats: NormStats = "auto",
        batch_size: int = 1,
        accumulate: int = 1,
        clip_norm: float | None = None,
    ):
        super().__init__()
        if accumulate < 1:
            raise ValueError(f"model.accumulate={accumulate} is too small: use 1 or more")
        if clip_norm is not None and clip_norm <= 0:
            raise ValueError(f"model.clip_norm={clip_norm} is too small: use more than 0, or null")
        self.automatic_optimization = False
        self.generator = generator
        self.discriminator = discriminator
        self.adversarial = adversarial
        self.reconstruction = reconstruction
        self.lambda_l1 = lambda_l1
        self.accumulate = accumulate
        self.clip_norm = clip_norm
        self._held: list[Batch] = []
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._norm_stats = resolve_norm_stats(norm_stats, batch_size=batch_size)
        initialize(generator)
        initialize(discriminator)
        # Per image, then averaged: the usual figure, and the one that identity's 20.7 dB is given in.
        psnr = PeakSignalNoiseRatio(data_range=(-1.0, 1.0), dim=(1, 2, 3), reduction="elementwise_mean")
        ssim = StructuralSimilarityIndexMeasure(data_range=(-1.0, 1.0))
        self.scores = MetricCollection({"L1": MeanAbsoluteError(), "PSNR": psnr, "SSIM": ssim}, prefix="val/")
        self.unchanged = self.scores.clone(prefix="unchanged/")

    def forward(self, input_NCHW: torch.Tensor) -> torch.Tensor:
        """Translate as the deployed generator would: no dropout, norm_stats as configured."""
        return inference_view(self.generator, norm_stats=self._norm_stats)(input_NCHW)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One step of the discriminator, then one of the generator against the updated discriminator."""
        self._held.append(batch)
        if len(self._held) < self.accumulate and not self.trainer.is_last_batch:
            return
        batches, self._held = self._held, []
        size = sum(map(len, batches))
        # Only the generator's optimizer is wrapped by Lightning, so that global_step counts steps, not both's.
        optimizer_g, _ = self.optimizers()
        _, optimizer_d = self.optimizers(use_pl_optimizer=False)
        losses = dict.fromkeys(("train/D", "train/G_gan", "train/G_l1"), 0.0)

        optimizer_d.zero_grad()
        for batch in batches:
            with torch.set_grad_enabled(len(batches) == 1):  # else it would hold the graphs of all batches
                fake_target = self.generator(batch.input_NCHW)
            loss_d = self.adversarial.discriminator_loss(
                fake_logits=self.discriminator(batch.input_NCHW, fake_target.detach()),
                real_logits=self.discriminator(batch.input_NCHW, batch.target_NCHW),
            )
            share = len(batch) / size
            self.manual_backward(share * loss_d)
            losses["train/D"] += share * loss_d.detach()
        self._clip(self.discriminator)
        optimizer_d.step()

        self.discriminator.requires_grad_(False)  # its weights need no gradient in the generator's step
        optimizer_g.zero_grad()
        for batch in batches:
            if len(batches) > 1:
                fake_target = self.generator(batch.input_NCHW)
            loss_gan = self.adversarial.generator_loss(self.discriminator(batch.input_NCHW, fake_target))
            loss_l1 = self.reconstruction(fake_target, batch.target_NCHW)
            share = len(batch) / size
            self.manual_backward(share * (loss_gan + self.lambda_l1 * loss_l1))
            losses["train/G_gan"] += share * loss_gan.detach()
            losses["train/G_l1"] += share * loss_l1.detach()
        self._clip(self.generator)
        optimizer_g.step()
        self.discriminator.requires_grad_(True)
        self.log_dict(losses, batch_size=size)

    def _clip(self, network: nn.Module) -> None:
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(network.parameters(), self.clip_norm)

    def on_train_epoch_end(self) -> None:
        """Both learning rates follow their schedule."""
        for scheduler in self.lr_schedulers():
            scheduler.step()

    def on_validation_start(self) -> None:
        """Freeze the structure of what is validated: the generator as it will be deployed."""
        self._deployed = (inference_view(self.generator, norm_stats=self._norm_stats),)  # a tuple: no submodule

    def validation_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Scores of the outputs, and on request (`trainer.validate`) of the inputs returned unchanged.

        Returns the outputs, float32 (N, C, H, W), to callbacks.
        """
        output = self._deployed[0](batch.input_NCHW).float()
        with torch.autocast(self.device.type, enabled=False):  # in bfloat16 SSIM is off by 0.08
            self.scores.update(output, batch.target_NCHW)
            self.log_dict(self.scores, batch_size=len(batch))
            if self.trainer.state.fn == TrainerFn.VALIDATING and batch.input_NCHW.shape == batch.target_NCHW.shape:
                self.unchanged.update(batch.input_NCHW, batch.target_NCHW)
                self.log_dict(self.unchanged, batch_size=len(batch))
        return output

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        """One optimizer and one scheduler for each network, generator first."""
        optimizers = [self._optimizer(network.parameters()) for network in (self.generator, self.discriminator)]
        return optimizers, [self._scheduler(optimizer) for optimizer in optimizers]
