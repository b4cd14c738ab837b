"""What runs in a worker process, which `p2p.pipelines.workers` starts. It imports NumPy and a codec, and no torch."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection

import numpy as np

from p2p.data.pairs import Pair
from p2p.pipelines.files import Failure
from p2p.pipelines.messages import ANSWER, LOAD, STAGES, TASK, Answer, Broken, Failed, Note, Setup, Span, Task, lane
from p2p.pipelines.slots import CODED, FAILED, FRAME, HIGH_DEPTH, PairTable, SharedArray, frame_in
from p2p.system.memory import keep_freed_memory

KEPT = 64 << 20  # bytes that a worker keeps of what images took: those of 16 megapixels, as a frame


class Spans:
    """Notes how long stages took; `p2p.profiling.clock.Clock`, which does the same, imports NVTX, half of a start."""

    def __init__(self, lane: str):
        self._lane = lane
        self._spans: list[Span] = []

    @contextmanager
    def __call__(self, stage: str, images: int = 1) -> Iterator[None]:
        """Measure the block as `stage`, at work on so many images."""
        begin = time.perf_counter_ns()
        try:
            yield
        finally:
            self._spans.append((stage, self._lane, begin, time.perf_counter_ns(), images))

    def take(self) -> list[Span]:
        """Those since the last call."""
        spans, self._spans = self._spans, []
        return spans


class Worker:
    """Does one task after another, until its parent hangs up, dies, or asks it to stop between two images.

    Args:
        setup: see there.
        fds: file descriptors that it names by their places.
        parent: where notes go.
    """

    def __init__(self, setup: Setup, fds: list[int], parent: Connection):
        self._tasks, self._answers = fds[setup.tasks], fds[setup.answers]
        arrays = {
            name: SharedArray(shape, dtype, fd=fds[at]).array for name, (shape, dtype, at) in setup.arrays.items()
        }
        self._input_NHWC, self._high_depth_NHWC = arrays["input"], arrays["high_depth"]
        self._output_NHWC = arrays["output"]
        self._coded, self._stop = arrays.get("coded"), arrays["stop"]
        self._loaded, self._saved = arrays["loaded"], arrays["saved"]
        self._seconds, self._images = arrays["seconds"][setup.index], arrays["images"][setup.index]
        self._cpu = arrays["cpu"][setup.index : setup.index + 1]
        self._pairs = PairTable(arrays["text"], arrays["ends"])
        self._setup, self._files, self._parent = setup, setup.files, parent
        self._clock = Spans(lane(setup.index))
        self._began = time.process_time()

    def serve(self) -> None:
        """Until there is nothing more to do, or a task ends by an exception."""
        while message := os.read(self._tasks, TASK.size):
            task = Task._make(TASK.unpack(message))
            try:
                failed = self.load(task) if task.kind == LOAD else self.save(task)
            except Exception as error:  # a disk's ConnectionError, say, which `main` would take for the parent's end
                self._parent.send(broken(error))
                return
            spans = self._count()
            if noted := bool(failed or spans):
                self._parent.send(Note(failed, spans))
            os.write(self._answers, ANSWER.pack(*Answer(*task, self._setup.index, noted)))

    def load(self, task: Task) -> Failed:
        """Fill the rows of an input slot. A broken slot is a bug, and raised."""
        failed = {}
        for row in range(task.first, task.first + task.count):
            self._go_on()
            found = self._loaded[task.slot, row]
            pair = self._pairs[found["pair"]]
            try:
                data, coded = self._read(pair, found)
                if not coded:
                    room = int(found["height"]) * int(found["width"])
                    frame_HWC, (found["height"], found["width"]) = self._files.load(pair, self._clock, data=data)
                    if self._files.sizing is None and frame_HWC.shape[0] * frame_HWC.shape[1] > room:
                        raise Failure("decode", f"cannot use {pair.input}: it was replaced meanwhile")
            except Failure as error:
                found["state"], failed[row] = FAILED, error.args
                continue
            if coded:
                self._coded[task.slot, row, : len(data)] = np.frombuffer(data, np.uint8)
                found["state"], found["coded"] = CODED, len(data)
                continue
            with self._clock("preprocess", images=0):
                high_depth = frame_HWC.dtype != np.uint8
                slots = self._high_depth_NHWC if high_depth else self._input_NHWC
                frame_in(slots, task.slot, row, found)[:] = frame_HWC
                found["state"] = HIGH_DEPTH if high_depth else FRAME
        return failed

    def _read(self, pair: Pair, found: np.void) -> tuple[bytes | None, bool]:
        """The bytes of a file, where it may be the GPU's to decode, and whether it is."""
        if self._coded is None:
            return None, False
        with self._clock("decode", images=0):
            data = self._files.read(pair)
            size = self._files.gpu_size(pair, data)
        if size is None:
            return data, False
        found["height"], found["width"] = size
        return data, True

    def save(self, task: Task) -> Failed:
        """Write the rows of an output slot. A disk that takes no file is the end, and raised."""
        failed = {}
        for row in range(task.first, task.first + task.count):
            self._go_on()
            known = self._saved[task.slot, row]
            size = int(known["height"]), int(known["width"])
            pair = self._pairs[known["pair"]]
            try:
                frame_HWC = frame_in(self._output_NHWC, task.slot, row, known)
                self._files.save(pair, frame_HWC, size, self._clock)
            except Failure as error:
                failed[row] = error.args
        return failed

    def _count(self) -> list[Span]:
        """Add up the work since the last call, where all can see it, or return all of it for a timeline."""
        self._cpu[0] = time.process_time() - self._began
        spans = self._clock.take()
        if self._setup.each_span:
            return spans
        for stage, _, begin, end, images in spans:
            self._seconds[STAGES.index(stage)] += (end - begin) / 1e9
            self._images[STAGES.index(stage)] += images
        return []

    def _go_on(self) -> None:
        if self._stop[0] or os.getppid() != self._setup.parent:
            sys.exit()


def main(fd: int) -> None:
    """Serve the parent at the other end of a connection."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # of all processes of a job; the parent decides
        signal.signal(number, signal.SIG_IGN)
    parent = Connection(fd)
    try:
        setup = parent.recv()
        with socket.socket(fileno=os.dup(fd)) as line:
            _, fds, *_ = socket.recv_fds(line, 1, 2 + len(setup.arrays))
        os.nice(setup.niceness)
        keep_freed_memory(KEPT)
        worker = Worker(setup, fds, parent)
        parent.send(None)  # ready
        worker.serve()
    except (EOFError, ConnectionError):  # the parent is done, or dead
        return
    except Exception as error:  # whatever it is, it is the parent's to raise
        with suppress(ConnectionError):  # nobody listens
            parent.send(broken(error))


def broken(error: Exception) -> Broken:
    """The exception that is being handled, as it can travel."""
    trace = traceback.format_exc()
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # of the error's own class, which may do anything when it is pickled
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return Broken(error, trace)
