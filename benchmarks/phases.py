"""A callback of `train.py` for `benchmarks.whole_training`: it waits for the GPU and records when each phase began."""

import json
import time
from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer


class Phases(Callback):
    """Writes {"train_start", "train_end", "epochs": [{"start", "steps_end", "saving_s", "images"}, ...]} at the end.

    Times of day in seconds. `saving_s` is what the training waits for checkpoints, and not how long they are written.
    It imports nothing of p2p, to measure commits that are older than itself.

    Args:
        file: to write.
    """

    def __init__(self, *, file: str):
        self._file = Path(file)
        self._record = {"epochs": []}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Everything before is start-up. Watch what saves."""
        self._record["train_start"] = time.time()
        save = trainer.save_checkpoint

        def timed(*args: object, **options: object) -> None:
            began = time.time()
            save(*args, **options)
            self._record["epochs"][-1]["saving_s"] += time.time() - began

        trainer.save_checkpoint = timed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The epoch before is over, validation and all."""
        self._record["epochs"].append({"start": time.time(), "saving_s": 0.0, "images": 0})

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch, *_) -> None:
        """Steps are queued faster than they run."""
        epoch = self._record["epochs"][-1]
        epoch["images"] += len(batch)
        if trainer.is_last_batch:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            epoch["steps_end"] = time.time()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write. The last validation is over, the last checkpoint may be under way."""
        self._record["train_end"] = time.time()
        self._file.write_text(json.dumps(self._record))
