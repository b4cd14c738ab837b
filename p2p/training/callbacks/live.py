"""A page of the training that goes on."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from p2p.report.page import data_of, publish
from p2p.training.callbacks.progress import Progress, epochs_of
from p2p.training.writer import writer_of


class Live(Callback):
    """`training.html` and `index.html`, written beside the training after each validation, and when it is over.

    It shows curves of the scores, and of the losses of each epoch's last step, the sample pictures, the speed and the
    time that is left. A browser loads it again every few seconds until the training is over. A run that goes on in its
    folder goes on with the curves.

    Args:
        folder: of the run; sample pictures are in its folder `samples`.
        title: heading of the page.
    """

    def __init__(self, *, folder: str, title: str):
        self._folder = Path(folder)
        self._title = title
        self._history: list[dict[str, float]] = []
        self._epoch_began = 0.0
        self._facts: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the curves over from the page of a run that goes on, and start counting."""
        self._epoch_began = time.perf_counter()
        goes_on = trainer.ckpt_path and Path(trainer.ckpt_path).resolve().parent.parent == self._folder.resolve()
        self._history = [row for row in self._earlier() if row["epoch"] <= trainer.current_epoch] if goes_on else []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note scores and losses, and have the page written."""
        if trainer.state.fn != TrainerFn.FITTING or not trainer.is_global_zero:
            return
        epoch, epochs = trainer.current_epoch + 1, epochs_of(trainer)
        values = {name: value.item() for name, value in trainer.callback_metrics.items()}
        finite = {name: value for name, value in values.items() if "/" in name and math.isfinite(value)}
        self._history.append({"epoch": epoch, **finite})
        now = time.perf_counter()
        seconds, self._epoch_began = now - self._epoch_began, now
        speed = next((each.images_per_second for each in trainer.callbacks if isinstance(each, Progress)), 0.0)
        self._facts = {"epoch": epoch, "epochs": epochs, "images_per_second": speed}
        self._facts |= {"epoch_seconds": seconds, "seconds_left": seconds * max(0, epochs - epoch)}
        self._write(trainer, "running")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that it is over."""
        self._write(trainer, "finished")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say that it was stopped."""
        with suppress(Exception):  # of what the writer did before, which may be this one
            self._write(trainer, "stopped")

    def _write(self, trainer: Trainer, status: str) -> None:
        if self._facts and trainer.is_global_zero:
            data = self._facts | {"status": status, "updated": time.time(), "history": list(self._history)}
            # Not by submit: what failed before is said elsewhere.
            writer_of(trainer).due.append(partial(self._publish, data))

    def _publish(self, data: dict[str, Any]) -> None:
        """In the writer's thread, behind the sample picture."""
        names = [f"samples/{path.name}" for path in sorted((self._folder / "samples").glob("epoch_*.png"))]
        with suppress(OSError):  # such as a full disk, which the next checkpoint says
            publish("training", self._folder, title=self._title, data=data | {"samples": names, "settings": {}})

    def _earlier(self) -> list[dict[str, float]]:
        try:
            return data_of((self._folder / "training.html").read_text())["history"]
        except (OSError, ValueError, KeyError):  # there is none, or it is of another version
            return []
