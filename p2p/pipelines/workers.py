"""The worker processes that load and save images: start them, and end them in order, on an error, or when killed."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from select import PIPE_BUF
from types import TracebackType
from typing import NamedTuple

import numpy as np

from p2p.pipelines.files import Files
from p2p.pipelines.messages import ANSWER, LOAD, STAGES, TASK, Answer, Broken, Note, Setup, Span, Task, lane
from p2p.pipelines.processes import take
from p2p.pipelines.slots import SharedArray
from p2p.system.cores import available_cores

PART = 4  # images of a task, at least, where a batch has them
QUEUED = 2  # tasks for each worker: one in hand and one next, so that it never waits for its parent
PATIENCE_S = 1.0  # for the images in hand, when all is over


class TraceOfWorker(Exception):
    """The stack trace of an exception in a worker, as its cause."""

    def __str__(self) -> str:
        return f"in a worker process:\n{self.args[0]}"


class Done(NamedTuple):
    """A task, and what was noted beside it: see `p2p.pipelines.messages`."""

    task: Task
    note: Note


def default_workers(images: int, *, batch_size: int, cores: int | None = None) -> int:
    """One for each core, this process's or of so many, or fewer where there are fewer tasks."""
    return min(cores or available_cores(), -(-images // min(PART, batch_size)))


class Workers:
    """So many processes that take tasks from one pipe, whoever has time the next one.

    They are fresh interpreters rather than forks, which CUDA and threads forbid, and not those of `multiprocessing`,
    which would import the main script again, and torch with it: 3 seconds instead of 0.2. They are a session of
    their own, which Ctrl-C in the terminal does not reach.

    Args:
        count: processes.
        niceness: added to theirs, so that they give way to an engine on the same cores.
        each_span: whether notes hold every span, for a timeline; False: `worked` tells their sums.
        files: what they do to an image.
        arrays: of `p2p.pipelines.slots`: `share_slots` and `share_pairs`.

    Attributes:
        pending: tasks that were submitted and not answered.
        handed_out: those of them that workers have, or will have next.
    """

    def __init__(self, count: int, *, niceness: int, each_span: bool, files: Files, arrays: dict[str, SharedArray]):
        self._own = {
            "stop": SharedArray((1,), "uint8"),
            "seconds": SharedArray((count, len(STAGES)), "float64"),
            "images": SharedArray((count, len(STAGES)), "int64"),
            "cpu": SharedArray((count,), "float64"),
        }
        self.pending = self.handed_out = 0
        self._waiting: tuple[deque[Task], deque[Task]] = (deque(), deque())  # first to be handed out first
        self._notes: dict[int, deque[Note]] = defaultdict(deque)
        (tasks, self._tasks), (self._answers, answering) = os.pipe(), os.pipe()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._answers, selectors.EVENT_READ)
        self._processes: list[tuple[Connection, subprocess.Popen]] = []
        shared = arrays | self._own
        described = {
            name: (each.shape, each.dtype, place) for place, (name, each) in enumerate(shared.items(), start=2)
        }
        fds = [tasks, answering, *(array.fd for array in shared.values())]
        try:
            for index in range(count):
                setup = Setup(index, os.getpid(), niceness, each_span, files, 0, 1, described)
                self._start(setup, fds)
        except BaseException:
            self._end(patience_s=0)
            raise
        finally:
            os.close(tasks)
            os.close(answering)

    def wait_until_ready(self) -> None:
        """Return when every worker is."""
        for index in range(len(self._processes)):
            self._receive(index)

    def submit(self, task: Task) -> None:
        """Have a task handed out some time; what is to be saved goes first, since it frees its slot."""
        self._waiting[task.kind == LOAD].append(task)
        self.pending += 1

    def hand_out(self) -> None:
        """Give tasks to the workers, as many as they can have."""
        tasks = []
        for queue in self._waiting:
            while queue and self.handed_out < QUEUED * len(self._processes):
                tasks.append(queue.popleft())
                self.handed_out += 1
        messages, most = b"".join(TASK.pack(*task) for task in tasks), PIPE_BUF // TASK.size * TASK.size
        with suppress(BrokenPipeError):  # all workers are dead: `answers` says so
            for at in range(0, len(messages), most):
                os.write(self._tasks, messages[at : at + most])

    def silent(self) -> bool:
        """Whether there is no answer yet."""
        return not self._selector.select(0)

    def answers(self, *, wait_s: float | None) -> Iterator[Done]:
        """What has been done meanwhile; waits so long for an answer, None for any time.

        Raises:
            ValueError: a worker was killed.
            Exception: whatever a stage raised in a worker.
        """
        ready = [key for key, _ in self._selector.select(wait_s)]
        for key in ready:
            if key.data is not None:
                self._receive(key.data)  # a note, unless something is wrong
        if not any(key.data is None for key in ready):
            return
        for answer in map(Answer._make, ANSWER.iter_unpack(os.read(self._answers, 1024 * ANSWER.size))):
            while answer.noted and not self._notes[answer.worker]:
                self._receive(answer.worker)
            note = self._notes[answer.worker].popleft() if answer.noted else Note({}, [])
            task = Task(*answer[:4])
            self.pending -= 1
            self.handed_out -= 1
            yield Done(task, note)

    def worked(self) -> tuple[list[Span], float]:
        """For each worker and stage one span as long as all of them together, and all workers' processor time."""
        seconds, images, cpu = (self._own[name].array for name in ("seconds", "images", "cpu"))
        spans = [
            (STAGES[stage], lane(worker), 0, round(1e9 * seconds[worker, stage]), int(images[worker, stage]))
            for worker, stage in np.argwhere(seconds)
        ]
        return spans, float(cpu.sum())

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let the workers finish the images in hand, for a second at most, and no others."""
        self._end(patience_s=PATIENCE_S)

    def _start(self, setup: Setup, fds: list[int]) -> None:
        here, process = take()
        self._processes.append((here, process))
        with suppress(ConnectionError), socket.socket(fileno=os.dup(here.fileno())) as line:
            here.send(setup)  # to one that is dead already: found out when its answer is read
            socket.send_fds(line, [b"."], fds)
        self._selector.register(here, selectors.EVENT_READ, data=setup.index)

    def _receive(self, index: int) -> None:
        """Take what a worker says beside its answers."""
        connection, process = self._processes[index]
        try:
            message = connection.recv()
        except (EOFError, OSError):  # at once, or in the middle of a message
            raise ValueError(self._cause(process)) from None
        if isinstance(message, Broken):
            raise message.error from TraceOfWorker(message.trace)
        if message is not None:  # that it is ready
            self._notes[index].append(message)

    @staticmethod
    def _cause(process: subprocess.Popen) -> str:
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
        code = process.returncode
        how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit status {code}"
        hint = ": if memory ran out, use fewer pipeline.workers or a smaller batch_size" if code == -9 else ""
        return f"worker process {process.pid} of the pipeline has died ({how}){hint}"

    def _end(self, *, patience_s: float) -> None:
        self._own["stop"].array[0] = 1
        self._selector.close()
        for fd in (self._tasks, self._answers):
            os.close(fd)
        deadline = time.monotonic() + patience_s
        try:
            for connection, _ in self._processes:
                connection.close()
            for _, process in self._processes:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
        finally:  # after a second Ctrl-C, too
            for _, process in self._processes:
                process.kill()  # does nothing to one that was waited for
                process.wait()
            for array in self._own.values():
                array.close()
