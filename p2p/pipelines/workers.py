"""Processes that load and save images, and their end: in order, by an error, or by a kill."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import TracebackType

from p2p.pipelines.files import Files
from p2p.pipelines.slots import SharedArray
from p2p.pipelines.worker import Broken, Load, Loaded, Save, Saved, Setup

QUEUED = 2  # tasks that a worker has: one in hand and one next, so that it never waits for its parent
PATIENCE_S = 1.0  # for the images in hand, when all is over

START = "import sys; from p2p.pipelines.worker import main; main(int(sys.argv[1]))"


class TraceOfWorker(Exception):
    """The stack trace of an exception in a worker, as its cause."""

    def __str__(self) -> str:
        return f"in a worker process:\n{self.args[0]}"


class Workers:
    """So many processes with a pipe each: no queue and no lock is shared, so that a killed one holds up no other.

    They are fresh interpreters rather than forks, which CUDA and threads forbid, and not those of `multiprocessing`,
    which would import the main script again, and torch with it: 3 seconds instead of 0.2. They are a session of
    their own, which Ctrl-C in the terminal does not reach.

    Args:
        count: processes.
        niceness: added to theirs, so that they give way to an engine on the same cores.
        each_span: whether their answers hold every span, for a timeline.
        files: what they do to an image.
        arrays: input, deep, output, stop and, where the GPU decodes, coded; see `p2p.pipelines.worker`.

    Attributes:
        pending: tasks that were submitted and not answered.
    """

    def __init__(self, count: int, *, niceness: int, each_span: bool, files: Files, arrays: dict[str, SharedArray]):
        self._stop = arrays["stop"].array
        self._files = files
        self.pending = 0
        self._waiting: tuple[deque[Save], deque[Load]] = (deque(), deque())  # first to be handed out first
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._woken, False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._processes: dict[Connection, subprocess.Popen] = {}
        self._tasks: dict[Connection, deque[Load | Save]] = {}
        described = {name: (each.shape, each.dtype, each.fd) for name, each in arrays.items()}
        try:
            for index in range(count):
                setup = Setup(f"worker {index}", os.getpid(), niceness, each_span, files, described)
                self._start(setup, [array.fd for array in arrays.values()])
        except BaseException:
            self._end(patience_s=0)
            raise

    def wait_until_ready(self) -> None:
        """Return when every worker is."""
        for connection in self._processes:
            self._receive(connection)

    def submit(self, task: Load | Save) -> None:
        """Have a task handed out some time; what is to be saved goes first, since it frees its slot."""
        self._waiting[isinstance(task, Load)].append(task)
        self.pending += 1

    def hand_out(self) -> None:
        """Give tasks to the workers that have the fewest, as many as they take."""
        for queue in self._waiting:
            while queue:
                connection = min(self._tasks, key=lambda each: len(self._tasks[each]))
                if len(self._tasks[connection]) >= QUEUED:
                    return
                task = queue.popleft()
                self._tasks[connection].append(task)
                with suppress(ConnectionError):  # as above
                    connection.send(task)

    def silent(self) -> bool:
        """Whether there is no answer yet."""
        return not self._selector.select(0)

    def wake(self) -> None:
        """Have `answers` return, from another thread."""
        with suppress(OSError):  # all is over
            os.write(self._waker, b"\0")

    def answers(self, *, wait_s: float | None) -> Iterator[Loaded | Saved]:
        """What has been done meanwhile; waits so long for an answer or a wake, None for any time.

        Raises:
            ValueError: a worker was killed.
            Exception: whatever a stage raised in a worker.
        """
        for key, _ in self._selector.select(wait_s):
            if key.fileobj == self._woken:
                os.read(self._woken, 1 << 10)
                continue
            answer = self._receive(key.fileobj)
            self._tasks[key.fileobj].popleft()
            self.pending -= 1
            yield answer

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let the workers finish the images in hand, for a second at most, and no others."""
        self._end(patience_s=PATIENCE_S)

    def _start(self, setup: Setup, fds: list[int]) -> None:
        here, there = Pipe()
        with there:
            process = subprocess.Popen(
                [sys.executable, "-c", START, str(there.fileno())],
                pass_fds=[there.fileno(), *fds],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                # Threads of a BLAS library that nothing here calls cost memory and a fifth of the start.
                env=os.environ
                | {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
        self._processes[here] = process
        self._tasks[here] = deque()
        with suppress(ConnectionError):  # it is dead already: found out when its answer is read
            here.send(setup)
        self._selector.register(here, selectors.EVENT_READ)

    def _receive(self, connection: Connection) -> Loaded | Saved | None:
        try:
            answer = connection.recv()
        except (EOFError, ConnectionError):
            raise ValueError(self._cause(self._processes[connection])) from None
        if isinstance(answer, Broken):
            raise answer.error from TraceOfWorker(answer.trace)
        return answer

    @staticmethod
    def _cause(process: subprocess.Popen) -> str:
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
        code = process.returncode
        how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit status {code}"
        hint = ": if memory ran out, use fewer pipeline.workers or a smaller batch_size" if code == -9 else ""
        return f"worker process {process.pid} of the pipeline has died ({how}){hint}"

    def _end(self, *, patience_s: float) -> None:
        self._stop[0] = 1
        self._selector.close()
        os.close(self._woken)
        os.close(self._waker)
        deadline = time.monotonic() + patience_s
        try:
            for connection in self._processes:
                connection.close()
            for process in self._processes.values():
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
        finally:  # after a second Ctrl-C, too
            for process in self._processes.values():
                process.kill()  # does nothing to one that was waited for
                process.wait()
            for task in (task for tasks in self._tasks.values() for task in tasks if isinstance(task, Save)):
                for name, _ in task.images:
                    self._files.partial(name).unlink(missing_ok=True)  # of one that was killed between write and rename
