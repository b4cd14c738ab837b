"""Ctrl-C between two batches."""

from __future__ import annotations

import os
import signal
from types import FrameType

from lightning import Callback, LightningModule, Trainer

from p2p.batch import Batch


class Interrupt(Callback):
    """Lets the step finish that a Ctrl-C meets, so that the checkpoint it leaves holds whole steps.

    Python's own way is an exception wherever the program happens to be: between the weights of a step and the count of
    it, which a resumed run would then repeat, or in a destructor, where it is lost. A second Ctrl-C is that exception.
    """

    def __init__(self):
        self._pressed = False
        self._process = os.getpid()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signal over until training ends, however it ends: Lightning has noted by now whose it was.

        Any earlier, and that would be what Lightning gives the signal back to.
        """
        self._pressed = False
        signal.signal(signal.SIGINT, self._remember)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Stop here, before anything of this batch is done; of several processes all stop before the same.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
        """
        if trainer.strategy.reduce_boolean_decision(self._pressed, all=False):
            raise KeyboardInterrupt

    def on_validation_batch_start(self, trainer: Trainer, *_: object) -> None:
        """Stop here, too, unless other processes would wait: each has its own number of validation batches.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
        """
        if self._pressed and trainer.world_size == 1:
            raise KeyboardInterrupt

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do what the signal says, which is Python's again.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed after the last batch.
        """
        if self._pressed:
            raise KeyboardInterrupt

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a loader process: it ends with its parent
            return
        if self._pressed:
            signal.default_int_handler(number, frame)
        self._pressed = True
        os.write(2, b"\nstopping after this step; press Ctrl-C again to stop at once\n")  # print is not reentrant
