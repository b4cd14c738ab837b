"""What one sees while training: a bar in a terminal, a line for each epoch everywhere."""

from __future__ import annotations

import sys
import time

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.trainer.states import TrainerFn

from p2p.batch import Batch
from p2p.report.tables import score_text


class Progress(TQDMProgressBar):
    """A bar with the losses there are and images/s, and after each validation one line that stays.

    Where the output is no terminal there is no bar, and the lines make a readable log.

    Args:
        refresh_rate: batches between two updates of the bar. Each reads the losses, which waits for a GPU.
    """

    def __init__(self, *, refresh_rate: int = 10):
        super().__init__(refresh_rate=refresh_rate if sys.stderr.isatty() else 0)
        self._images = 0
        self._seconds = 0.0
        self._started = 0.0

    @property
    def images_per_second(self) -> float:
        """Training images per second of this epoch, loading included and validation left out."""
        return self._images / self._seconds if self._seconds else 0.0

    def on_train_start(self, trainer: Trainer, *args: object) -> None:
        """An epoch that was stopped in its middle goes on without a start."""
        super().on_train_start(trainer, *args)
        if trainer.fit_loop.restarted_mid_epoch:
            self.on_train_epoch_start(trainer)

    def on_train_epoch_start(self, trainer: Trainer, *args: object) -> None:
        """Start counting."""
        super().on_train_epoch_start(trainer, *args)
        self.train_progress_bar.set_description(f"epoch {trainer.current_epoch + 1:>3}/{trainer.max_epochs}")
        self._images, self._seconds, self._started = 0, 0.0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        """Count the batch's images."""
        self._images += len(batch) * trainer.world_size
        if trainer.is_last_batch and pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)  # steps are queued faster than they run
        self._seconds = time.perf_counter() - self._started
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, str]:
        """The bar's right end."""
        losses = {name: loss for name, loss in trainer.callback_metrics.items() if name.startswith("train/")}
        shown = {name.removeprefix("train/"): f"{loss:.3f}" for name, loss in losses.items()}
        return shown | {"images/s": f"{self.images_per_second:.1f}"}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the epoch's line."""
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn != TrainerFn.FITTING or not trainer.is_global_zero:
            return
        scores = {name.removeprefix("val/"): trainer.callback_metrics[name].item() for name in pl_module.scores}
        shown = "  ".join(f"{name} {score_text(score)}" for name, score in scores.items())
        epoch = f"epoch {trainer.current_epoch + 1:>3}/{trainer.max_epochs}"
        line = f"{epoch}  val {shown}  {self.images_per_second:.1f} images/s"
        self.print(line) if self.is_enabled else print(line, flush=True)
