"""Ctrl-C and SIGTERM between two batches."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from p2p.batch import Batch
from p2p.system import signals
from p2p.training.exchange import ask

ASK_EVERY = 8  # batches of several GPUs: a question is answered by the time of the next


class Interrupt(Callback):
    """Lets the step finish that a signal meets, so that the checkpoint it leaves holds whole steps.

    Otherwise there is an exception wherever the program happens to be: between the weights of a step and the count of
    it, which a resumed run would then repeat, or in a destructor, where it is lost. The same signal again is that
    exception, after which a checkpoint is saved, and a third one ends the process.
    """

    _answer: Callable[[], bool]  # of several GPUs, to the last question whether to stop

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals over until training ends, however it ends: Lightning has noted by now whose they were.

        Any earlier, and that would be what Lightning gives the signals back to.
        """
        signals.answer(self._remember)
        self._answer = lambda: False
        # Lightning's own question in every batch, to which the host waits for the GPU: 4 ms and more a step.
        setattr(trainer.fit_loop.epoch_loop, "_broadcast_sigterm_tensor", lambda: None)  # noqa: B010

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Stop here, before anything of this batch is done; of several processes all stop before the same.

        Raises:
            Stop: a signal was received, by this process or another.
        """
        stop = signals.received is not None
        if trainer.world_size > 1 and pl_module.device.type == "cuda":
            if batch_idx % ASK_EVERY:
                return
            stop, self._answer = self._answer(), ask(stop, pl_module.device)
        elif trainer.world_size > 1:
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop:
            raise signals.Stop

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Outside of training take SIGTERM back from Lightning, which would only count it, or wait for others."""
        if trainer.state.fn != TrainerFn.FITTING:
            signals.answer(signals.stop)

    def on_validation_batch_start(self, trainer: Trainer, *_: object) -> None:
        """Stop here, too, unless other processes would wait: each has its own number of validation batches.

        Raises:
            Stop: a signal was received.
        """
        if trainer.world_size == 1:
            signals.check()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do what the signal says, which is answered as before again.

        Raises:
            Stop: a signal was received after the last batch.
        """
        signals.check()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if signals.received == number:  # again
            signals.answer(signals.stop)
            _say("stopping in this step, and saving", "stop without saving", number)
            raise signals.Stop
        if signals.note(number):
            _say("stopping after this step", "stop at once", number)


def _say(what: str, again: str, number: int) -> None:
    hint = f"; press Ctrl-C again to {again}" if number == signal.SIGINT else ""
    os.write(2, f"\n{what}{hint}\n".encode())  # print is not reentrant
