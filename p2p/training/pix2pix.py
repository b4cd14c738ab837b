"""pix2pix as a LightningModule: one generator, one discriminator, two steps a batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from lightning import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import Metric, MetricCollection

from p2p.batch import Batch
from p2p.losses.adversarial import Adversarial
from p2p.losses.feature_matching import FeatureMatching
from p2p.losses.loss import Loss, weights_of
from p2p.losses.of_generator import generator_losses
from p2p.losses.scales import Logits, over_scales
from p2p.models.inference_view import NormStats, inference_view, resolve_norm_stats
from p2p.models.init import initialize
from p2p.training.augment import augmented, check_changes
from p2p.training.capture import CapturedStep, beside, capture_if_possible
from p2p.training.checks import check_parts, check_step
from p2p.training.exchange import averaging, start_average, take_buffers_of_first, together
from p2p.training.finite import LossWatch, check_weights
from p2p.training.optimizers import as_list, check_optimization, lay_out_like_weights
from p2p.training.trial import try_parts


class Pix2Pix(LightningModule):
    """Paired image-to-image translation with a conditional GAN (Isola et al. 2017).

    Args:
        generator: (N, C, H, W) in [-1, 1] -> (N, C', H, W) in [-1, 1].
        discriminator: (input, image) -> logits of any shape, or a list of them, one of each scale.
        adversarial: the game between the two; None trains the generator on `losses` alone, and the discriminator is
            dropped.
        losses: by name what else the generator is to make small, each with its weight.
        metrics: by name the scores of validation; each `update` takes outputs and targets, see `p2p.metrics.image`.
        optimizer: parameters -> optimizer; called once for each network.
        scheduler: optimizer -> learning-rate scheduler, stepped at the end of each epoch; ReduceLROnPlateau is
            given the score `monitor`.
        lambda_l1: weight against the adversarial loss of those `losses` that have none of their own; 100 in the paper.
        monitor: the score that a schedule goes by, such as val/L1.
        init, init_gain: of the weights, see `p2p.models.init`.
        norm_stats: BatchNorm's statistics in validation and deployment, see `p2p.models.inference_view`.
        batch_size: of the training batches; decides what norm_stats="auto" means. train.py has decided it before,
            as processes may share their statistics.
        accumulate: batches that make one step together, as if they were one of so many times the size, in the
            memory of one. Their images are generated twice: the discriminator must step on all of them before
            the generator sees it.
        augment: what is changed of the pairs that the discriminator sees, see `p2p.training.augment`.
        clip_norm: largest norm of each network's gradient; None leaves it as it is.
        capture: train by a CUDA graph, see `p2p.training.capture`: True, False, or "auto" where it can be.
        compile: True compiles both networks with torch.compile, a string is its mode; validation is not compiled.

    Logs train/D and train/G_gan if there is a game, train/G_<name> of each of `losses` before its weight, and
    val/<name> of each of `metrics`; before and after training unchanged/<name> as well, of the inputs themselves.

    Raises:
        ValueError: there is neither a game nor a loss, one of `losses` or `metrics` is none, or a number is out of
            range.
    """

    def __init__(
        self,
        *,
        generator: nn.Module,
        discriminator: nn.Module | None,
        adversarial: Adversarial | None,
        losses: Mapping[str, Loss | FeatureMatching],
        metrics: Mapping[str, Metric],
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[[Optimizer], LRScheduler],
        lambda_l1: float = 100.0,
        monitor: str = "val/L1",
        init: str = "normal",
        init_gain: float = 0.02,
        norm_stats: NormStats = "auto",
        batch_size: int = 1,
        accumulate: int = 1,
        augment: Sequence[str] = (),
        clip_norm: float | None = None,
        capture: bool | Literal["auto"] = "auto",
        compile: bool | str = False,
    ):
        super().__init__()
        weights = weights_of(losses, lambda_l1=lambda_l1)
        check_parts(adversarial=adversarial, losses=losses, weights=weights, metrics=metrics)
        check_step(adversarial, accumulate=accumulate, clip_norm=clip_norm, capture=capture, compile=compile)
        check_changes(augment, losses)
        check_optimization(optimizer, scheduler)
        self.automatic_optimization = False
        self.generator = generator
        self.discriminator = discriminator if adversarial is not None else None
        self.adversarial = adversarial
        self.losses = dict(losses)
        self.weights = weights
        self._monitor = monitor
        self.accumulate = accumulate
        self._augment = augment
        self.clip_norm = clip_norm
        self._capture = capture
        self._captured: CapturedStep | None = None
        self._watch = LossWatch("cpu")
        self._held: list[Batch] = []
        self.make_optimizer = optimizer
        self._scheduler = scheduler
        self._norm_stats = resolve_norm_stats(norm_stats, batch_size=batch_size)
        self._batch_size = batch_size
        self._deployed: tuple[nn.Module, ...] = ()
        for network in (self.generator, self.discriminator):
            if network is not None:
                initialize(network, init=init, gain=init_gain)
                if compile:  # in place, so that names in the checkpoint stay
                    network.compile(mode=None if compile is True else compile, dynamic=False)
        self.scores = MetricCollection(dict(metrics), prefix="val/")
        self.unchanged = self.scores.clone(prefix="unchanged/")
        self._tried = False
        self._together = False

    def forward(self, input_NCHW: torch.Tensor) -> torch.Tensor:
        """Translate as the deployed generator would: no dropout, norm_stats as configured."""
        (deployed,) = self._deployed or (inference_view(self.generator, norm_stats=self._norm_stats),)
        return deployed(input_NCHW)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One step of the discriminator, then one of the generator against the updated discriminator.

        Raises:
            ValueError: a loss is not finite; on a GPU this is found out where losses are logged.
        """
        if self.device.type == "cuda":
            batch = batch.channels_last()  # as the weights are; not in a hook of Lightning's, which would warn
        self._held.append(batch)
        if len(self._held) < self.accumulate and not self.trainer.is_last_batch:
            return
        batches, self._held = self._held, []
        every = self.trainer.log_every_n_steps
        if self._captured is None:
            losses = self._both_steps(batches)
        else:
            losses = self._captured(batch)
            self._count_step()
        logged = self.trainer.is_last_batch or (every > 0 and self.global_step % every == 0)
        if logged or self.device.type == "cpu":  # elsewhere it waits for the device
            if self._together:
                losses = self._of_all(losses)
            self._watch.check(losses, step=self.global_step, epoch=self.current_epoch + 1)
        if self._captured is not None and not logged:
            return  # Lightning takes 0.3 ms to log a value, also where nobody writes it: together a third of a step
        self.log_dict(losses, batch_size=sum(map(len, batches)))

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        """Log the losses of an epoch's last step, too: log_every_n_steps=10 would log none of an epoch of eight."""
        connector = self.trainer._logger_connector
        if self.trainer.is_last_batch and self.trainer.log_every_n_steps and not connector.should_update_logs:
            connector.log_metrics(connector.metrics["log"])

    def _both_steps(self, batches: list[Batch]) -> dict[str, torch.Tensor]:
        # One batch is generated once, for both steps; the graphs of several would fill the memory.
        real_logits = fake_target = None
        if len(batches) == 1:
            side = None if self._captured is None else self._captured.side
            with beside(lambda: self._real_logits(batches[0]), side) as real_logits:
                fake_target = self.generator(batches[0].input_NCHW)
        losses = {}
        if self.adversarial is not None:
            losses["train/D"] = self._discriminator_step(batches, fake_target, real_logits)
        losses |= self._generator_step(batches, fake_target)
        self._watch.add(losses)
        return losses

    def _real_logits(self, batch: Batch) -> Logits | None:
        return None if self.adversarial is None else self._judge(batch.input_NCHW, batch.target_NCHW)

    def _judge(self, input_NCHW: torch.Tensor, image_NCHW: torch.Tensor, **options: bool) -> Any:
        """The discriminator of a pair, augmented if that is wanted."""
        if self._augment:
            input_NCHW, image_NCHW = augmented(input_NCHW, image_NCHW, self._augment)
        return self.discriminator(input_NCHW, image_NCHW, **options)

    def _of_all(self, losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Their means over all processes, of which all hear if one of them has met NaN."""
        values = torch.stack([loss.float() for loss in losses.values()])
        start_average(values).wait()
        losses = dict(zip(losses, values.unbind(), strict=True))
        self._watch.add(losses)
        return losses

    def _count_step(self) -> None:
        """What Lightning's wrapper of the generator's optimizer does beside the step, for global_step."""
        optimizer = as_list(self.optimizers())[0]
        optimizer._on_before_step()
        optimizer._on_after_step()

    def _discriminator_step(
        self, batches: list[Batch], fake_target: torch.Tensor | None, real_logits: Logits | None
    ) -> torch.Tensor:
        # Only the generator's optimizer is wrapped by Lightning, so that global_step counts steps, not both's.
        optimizer = self.optimizers(use_pl_optimizer=False)[1]
        optimizer.zero_grad()
        mean = 0.0
        for batch, share in _shares(batches):
            real_input, real_target = batch.input_NCHW, batch.target_NCHW
            with torch.no_grad():
                fake = self.generator(real_input) if fake_target is None else fake_target.detach()
            real = self._real_logits(batch) if real_logits is None else real_logits
            loss = over_scales(self.adversarial.discriminator_loss, real, self._judge(real_input, fake))
            loss = loss + self.adversarial.penalty(self.discriminator, real_input, real_target, fake)
            self._backward(share * loss, self.discriminator, last=batch is batches[-1])
            mean += share * loss.detach()
        self._clip(self.discriminator)
        optimizer.step()
        return mean

    def _generator_step(self, batches: list[Batch], fake_target: torch.Tensor | None) -> dict[str, torch.Tensor]:
        optimizer = as_list(self.optimizers(use_pl_optimizer=self._captured is None))[0]
        optimizer.zero_grad()
        means: defaultdict[str, Any] = defaultdict(float)
        if self.adversarial is not None:
            self.discriminator.requires_grad_(False)  # its weights need no gradient here
        for batch, share in _shares(batches):
            fake = self.generator(batch.input_NCHW) if fake_target is None else fake_target
            losses = generator_losses(
                fake, batch, losses=self.losses, adversarial=self.adversarial, discriminator=self._judge
            )
            total = losses.get("gan", 0.0)
            for name, weight in self.weights.items():
                total = total + weight * losses[name]
            self._backward(share * total, self.generator, last=batch is batches[-1])
            for name, loss in losses.items():
                means[f"train/G_{name}"] += share * loss.detach()
        self._clip(self.generator)
        optimizer.step()
        if self.adversarial is not None:
            self.discriminator.requires_grad_(True)
        return means

    def _backward(self, loss: torch.Tensor, network: nn.Module, *, last: bool) -> None:
        """Add the gradients of a network; with the last of a step they become means over all processes."""
        with averaging(network) if self._together and last else nullcontext():
            self.manual_backward(loss)

    def _clip(self, network: nn.Module) -> None:
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(network.parameters(), self.clip_norm)

    def on_train_epoch_end(self) -> None:
        """The learning rates follow their schedule, which may go by the last validation."""
        for scheduler in as_list(self.lr_schedulers()):
            if not isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step()
            elif (score := self.trainer.callback_metrics.get(self._monitor)) is not None:
                scheduler.step(score)

    def setup(self, stage: str) -> None:
        """Losses go where the networks do; on a GPU weights are laid out as convolutions want them."""
        device = self.trainer.strategy.root_device
        for loss in self.losses.values():
            if isinstance(loss, nn.Module):
                loss.to(device)
        if device.type == "cuda":
            for network in (self.generator, self.discriminator):
                if network is not None:
                    network.to(memory_format=torch.channels_last)

    def on_train_start(self) -> None:
        """Decide whether steps are captured: now the optimizers have their state, if there was a checkpoint.

        Raises:
            ValueError: model.capture=true cannot be.
        """
        self._watch = LossWatch(self.device)
        self._together = together(self.trainer)
        optimizers = as_list(self.optimizers(use_pl_optimizer=False))
        for optimizer in optimizers:
            lay_out_like_weights(optimizer)
        self._captured = capture_if_possible(
            lambda batch: self._both_steps([batch]),
            wanted=self._capture,
            optimizers=optimizers,
            device=self.device,
            by_hooks=self.trainer.world_size > 1 and not self._together,
            accumulate=self.accumulate,
        )

    def record_anew(self) -> None:
        """A recorded step is recorded again: weights have begun to be trained."""
        if self._captured is not None:
            self._captured.start_over()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to replace a good checkpoint by weights that are lost, and count batches without a step as untrained.

        Raises:
            ValueError: a loss was not finite, or a weight is not.
        """
        self._watch.check_again()
        for name in ("generator", "discriminator"):
            if (network := getattr(self, name)) is not None:
                check_weights(network, name=name)
        loop = checkpoint["loops"]["fit_loop"]
        for counts in (loop["epoch_loop.batch_progress"][name] for name in ("current", "total")):
            counts.update({name: count - len(self._held) for name, count in counts.items()})
        loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= len(self._held)

    def on_train_end(self) -> None:
        """Give the graph's memory back."""
        self._captured = None

    def on_fit_start(self) -> None:
        """Refuse float16, whose loss scaling would have to reach the discriminator's optimizer, too.

        Raises:
            ValueError: trainer.precision is 16-mixed.
        """
        if self.trainer.precision == "16-mixed":
            raise ValueError("trainer.precision=16-mixed is not supported: use bf16-mixed or 32-true")

    def on_validation_start(self) -> None:
        """Freeze the structure of what is validated: the generator as it will be deployed."""
        if together(self.trainer):
            take_buffers_of_first(self.generator)
        self._deployed = (inference_view(self.generator, norm_stats=self._norm_stats),)  # a tuple: no submodule

    def on_validation_end(self) -> None:
        """Let go of it: where Lightning moves the networks in the end, its buffers would not follow."""
        self._deployed = ()

    def validation_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Scores of the outputs, and on request (`trainer.validate`) of the inputs returned unchanged.

        Returns the outputs, float32 (N, C, H, W), to callbacks.
        """
        # In channels_last, as it comes from a GPU, older torchmetrics cannot take it.
        output = self._deployed[0](batch.input_NCHW).float().contiguous()
        if not self._tried:
            self._tried = True
            parts = {"adversarial": self.adversarial, "discriminator": self.discriminator, "losses": self.losses}
            try_parts(batch, output, count=self._batch_size, **parts, metrics=dict(self.scores.items(keep_base=True)))
        with torch.autocast(self.device.type, enabled=False):  # in bfloat16 SSIM is off by 0.08
            self.scores.update(output, batch.target_NCHW)
            self.log_dict(self.scores, batch_size=len(batch))
            if self.trainer.state.fn == TrainerFn.VALIDATING and batch.input_NCHW.shape == batch.target_NCHW.shape:
                self.unchanged.update(batch.input_NCHW, batch.target_NCHW)
                self.log_dict(self.unchanged, batch_size=len(batch))
        return output

    def configure_optimizers(self) -> tuple[list[Optimizer], list[dict[str, LRScheduler | str]]]:
        """One optimizer and one scheduler for each network that is trained, generator first."""
        networks = [network for network in (self.generator, self.discriminator) if network is not None]
        optimizers = [self.make_optimizer(network.parameters()) for network in networks]
        schedulers = [
            {"scheduler": self._scheduler(optimizer), "name": name}  # that rates are logged by
            for name, optimizer in zip(("lr/G", "lr/D"), optimizers, strict=False)
        ]
        return optimizers, schedulers


def _shares(batches: list[Batch]) -> list[tuple[Batch, float]]:
    """Each batch with the share of all images that it holds."""
    size = sum(map(len, batches))
    return [(batch, len(batch) / size) for batch in batches]
