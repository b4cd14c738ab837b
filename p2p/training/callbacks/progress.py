"""What a training prints: a progress bar in a terminal, and a line for each epoch."""

from __future__ import annotations

import sys
import time

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from tqdm import tqdm

from p2p.batch import Batch
from p2p.report.tables import score_text
from p2p.training.writer import writer_of

BAR = "{desc} {percentage:3.0f}%|{bar}|"


class Progress(ProgressBar):
    """A bar of the whole run with what is being done, and after each validation one line that stays.

    It says the time that is left, that of the whole run, images/s and the losses there are. Where the output is no
    terminal there is no bar, and the lines make a readable log.

    Args:
        refresh_s: seconds between two updates of the bar. Each reads the losses, which waits for a GPU.
    """

    def __init__(self, *, refresh_s: float = 0.25):
        super().__init__()
        self._refresh_s = refresh_s
        self._enabled = sys.stderr.isatty()
        self._bar: tqdm | None = None
        self._drawn_at = self._began = self._started = 0.0
        self._batches = self._images = 0
        self._seconds = 0.0  # of this epoch's training, so far
        self._before: tuple[float, float] | None = None  # of the epoch before: seconds a batch, and those between

    def disable(self) -> None:
        """What Lightning asks of all processes but the first."""
        self._enabled = False

    def print(self, *args: object, **_: object) -> None:
        """Above the bar."""
        tqdm.write(" ".join(map(str, args))) if self._bar is not None else print(*args, flush=True)

    @property
    def images_per_second(self) -> float:
        """Training images per second of this epoch, loading included and validation left out."""
        return self._images / self._seconds if self._seconds else 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar. An epoch that was stopped in its middle goes on without a start."""
        self._began, self._before = time.perf_counter(), None
        if self._enabled:
            total, desc = epochs_of(trainer) * trainer.num_training_batches, f"{self._epoch(trainer)} training"
            options = {"bar_format": BAR, "dynamic_ncols": True, "leave": False, "file": sys.stderr}
            self._bar = tqdm(total=total, desc=desc, **options)
        self._start_epoch()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting."""
        if self._batches:
            between = time.perf_counter() - self._started - self._seconds
            self._before = self._seconds / self._batches, between
        self._start_epoch()
        self._draw("training", trainer)

    def _start_epoch(self) -> None:
        self._batches, self._images, self._seconds, self._started = 0, 0, 0.0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        """Count the batch and its images."""
        self._batches += 1
        self._images += len(batch) * trainer.world_size
        if trainer.is_last_batch and pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)  # steps are queued faster than they run
        self._seconds = time.perf_counter() - self._started
        self._draw("training", trainer, batch=batch_idx + 1)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that it validates."""
        self._draw("validating", trainer, batch=self._batches, at_once=True)

    def on_validation_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Have the times go on."""
        self._draw("validating", trainer, batch=self._batches)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the epoch's line. The best and the last are saved next."""
        if trainer.state.fn != TrainerFn.FITTING or not trainer.is_global_zero:
            return
        scores = {name.removeprefix("val/"): trainer.callback_metrics[name].item() for name in pl_module.scores}
        shown = "  ".join(f"{name} {score_text(score)}" for name, score in scores.items())
        self.print(f"{self._epoch(trainer)}  val {shown}  {self.images_per_second:.1f} images/s")
        self._draw("saving", trainer, batch=self._batches, at_once=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last checkpoint is waited for."""
        self._draw("saving", trainer, at_once=True)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal to what is said of it."""
        self.on_fit_end(trainer, pl_module)

    def _draw(self, doing: str, trainer: Trainer, *, batch: int = 0, at_once: bool = False) -> None:
        now = time.perf_counter()
        if self._bar is None or (not at_once and now - self._drawn_at < self._refresh_s):
            return
        self._drawn_at = now
        doing = "training, saving" if doing == "training" and writer_of(trainer).busy else doing
        self._bar.n = min(trainer.current_epoch * trainer.num_training_batches + batch, self._bar.total)
        self._bar.set_description_str(f"{self._epoch(trainer)} {doing}", refresh=False)
        self._bar.bar_format = f"{BAR} {'  '.join(self._facts(trainer, now))}"
        self._bar.refresh()

    def _facts(self, trainer: Trainer, now: float) -> list[str]:
        """The bar's right end."""
        losses = {name: loss for name, loss in trainer.callback_metrics.items() if name.startswith("train/")}
        shown = [f"{name.removeprefix('train/')} {loss:.3f}" for name, loss in losses.items()]
        left = self._seconds_left(trainer)
        times = [f"{clock(left)} left of {clock(now - self._began + left)}"] if left is not None else []
        return [*times, f"{self.images_per_second:.1f} images/s", *shown]

    def _seconds_left(self, trainer: Trainer) -> float | None:
        """As long as the epoch before took, validation and all: the first one holds what happens once."""
        if self._before is None and not self._batches:
            return None
        batch_s, between_s = self._before or (self._seconds / self._batches, 0.0)
        epochs = epochs_of(trainer) - trainer.current_epoch
        return max(0.0, (self._bar.total - self._bar.n) * batch_s + epochs * between_s)

    def _epoch(self, trainer: Trainer) -> str:
        epochs = epochs_of(trainer)
        return f"epoch {min(trainer.current_epoch + 1, epochs):>3}/{epochs}"


def epochs_of(trainer: Trainer) -> int:
    """Of the whole run, which trainer.max_steps may end earlier."""
    if trainer.max_epochs in (None, -1):
        return max(1, -(-trainer.max_steps // int(trainer.num_training_batches)))
    return trainer.max_epochs


def clock(seconds: float) -> str:
    """0:07, 2:31, 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
