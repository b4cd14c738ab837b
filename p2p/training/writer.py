"""A thread that writes files while the training continues, one after another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from lightning import Callback, LightningModule, Trainer

from p2p.batch import Batch
from p2p.system.gpu_faults import failure


class Writer(Callback):
    """Does jobs in a thread of its own: each starts with the next batch that is trained, or when it is waited for.

    Until then what belongs to it can be added, such as the state of a callback that saves behind another one. What a
    job fails by, such as a full disk, is raised in the main thread: before the next batch, by the next job, or where
    jobs are waited for.

    Attributes:
        due: the jobs that have not started.
    """

    def __init__(self):
        self.due: list[Callable[[], None]] = []
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        self._started: deque[Future] = deque()

    @property
    def busy(self) -> bool:
        """Whether a job is being done."""
        return any(not job.done() for job in self._started)

    def submit(self, job: Callable[[], None]) -> None:
        """Do it soon, in the order of these calls.

        Raises:
            Exception: what an earlier one has failed by.
        """
        self.check()
        self.due.append(job)

    def start(self) -> None:
        """Hand what is due to the thread."""
        self._started += [self._thread.submit(job) for job in self.due]
        self.due.clear()

    def check(self) -> None:
        """Raise what a job has failed by, once; what others fail by that stood behind it follows from the same."""
        while self._started and self._started[0].done():
            job = self._started.popleft()
            if job.exception() is not None:
                self._started.clear()
            job.result()

    def wait(self) -> None:
        """Return when all is written.

        Raises:
            Exception: what a job has failed by.
        """
        self.start()
        while self._started:
            self._started[0].exception()  # waits, and keeps the job if a signal ends that
            self.check()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Start, beside the step that comes, and do not train on if the disk is full."""
        self.start()
        self.check()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Finish what has been started where the GPU has failed: nothing is torn down then, and the process ends."""
        if failure(exception) is not None:
            with suppress(Exception):  # of what was still to be copied from that GPU
                self.wait()


def writer_of(trainer: Trainer) -> Writer:
    """The writer among its callbacks, which it gets if it has none."""
    for callback in trainer.callbacks:
        if isinstance(callback, Writer):
            return callback
    trainer.callbacks.append(writer := Writer())
    return writer
