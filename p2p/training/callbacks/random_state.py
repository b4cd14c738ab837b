"""Save the random state in checkpoints, so that a resumed run continues exactly."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from p2p.batch import Batch

KEY = "random_state"


class RandomState(Callback):
    """Keeps the random generators of Python, NumPy and torch in the checkpoint, which Lightning does not.

    Order, crops, flips and dropout then go on where they were: n epochs in one go and in two give the same bits
    on a CPU. Of several processes the state of the first stands for all: at the start of an epoch they all go on from
    it, so that order and crops are those of one process, and with the first batch each of the others leaves for a
    sequence of its own, which follows from that state. Else their images would share the masks of dropout.
    """

    def __init__(self):
        self._apart = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on from the state of the first process: the loader is about to draw the seed of the epoch."""
        torch.set_rng_state(trainer.strategy.broadcast(torch.get_rng_state()))
        self._apart = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Leave for a sequence of its own, on the CPU and on the GPU, if this is not the first process."""
        if trainer.global_rank > 0 and not self._apart:
            torch.manual_seed(torch.randint(2**62, ()).item() + trainer.global_rank)
        self._apart = True

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the states, as plain types that torch.load accepts with weights_only=True."""
        drawn: Any = np.random.get_state()
        name, keys, *rest = drawn
        checkpoint[KEY] = {
            "python": random.getstate(),
            "numpy": (name, keys.tolist(), *rest),
            "torch": torch.get_rng_state(),
        }
        if pl_module.device.type == "cuda":
            checkpoint[KEY]["cuda"] = torch.cuda.get_rng_state(pl_module.device)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Set the generators: nothing draws between this and the training loader's first shuffle."""
        state = checkpoint.get(KEY)
        if state is None or trainer.state.fn != TrainerFn.FITTING:
            return
        version, internal, gauss = state["python"]
        random.setstate((version, tuple(internal), gauss))
        name, keys, *rest = state["numpy"]
        np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
        torch.set_rng_state(state["torch"].cpu())
        if "cuda" in state and trainer.strategy.root_device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"].cpu(), trainer.strategy.root_device)
