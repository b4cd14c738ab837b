"""A callback of `train.py` for `benchmarks.training`: it waits for the GPU and records the speed of each epoch."""

import json
import time
from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer

from p2p.batch import Batch


class Pace(Callback):
    """Writes {"first_step": time of day, "epochs": [{"images": n, "seconds": s}, ...]} when training ends.

    An epoch lasts from its start, before the first batch is asked for, until its last step is through on the GPU;
    validation and checkpoints are left out.

    Args:
        file: to write.
    """

    def __init__(self, *, file: str):
        self._file = Path(file)
        self._record = {"first_step": None, "epochs": []}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the watch."""
        _wait()
        self._images, self._started = 0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        """Count; at the end of the epoch stop the watch."""
        self._images += len(batch)
        if self._record["first_step"] is None:
            _wait()
            self._record["first_step"] = time.time()
        if trainer.is_last_batch:
            _wait()
            seconds = time.perf_counter() - self._started
            self._record["epochs"].append({"images": self._images, "seconds": seconds})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write."""
        self._file.write_text(json.dumps(self._record))


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
