"""What runs in a worker process, which `p2p.pipelines.workers` starts.

It imports NumPy and a codec, and no torch. Tasks and answers are short tuples; pixels stay in the slots.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np

from p2p.data.images import read_file
from p2p.data.pairs import Pair, Source
from p2p.pipelines.files import Files
from p2p.pipelines.slots import SharedArray


class Load(NamedTuple):
    """Decode and preprocess images into the rows of an input slot from `first` on.

    `images` are (name, path, half). Answered by Loaded.
    """

    slot: int
    first: int
    images: list[tuple[str, str, str | None]]


class Loaded(NamedTuple):
    """What became of the rows.

    `sizes`: height and width that each had in its file; `coded`: bytes of those that are in `coded` as the files
    are, for the GPU to decode; `deep`: those that are in `deep_NHWC` instead of `input_NHWC`; `failed`: reasons.
    """

    slot: int
    count: int
    sizes: dict[int, tuple[int, int]]
    coded: dict[int, int]
    deep: list[int]
    failed: dict[int, str]
    spans: list[tuple[str, str, int, int, int]]
    cpu_seconds: float


class Save(NamedTuple):
    """Encode and write the rows of an output slot from `first` on.

    `images` are (name, the size that the input had). Answered by Saved.
    """

    slot: int
    first: int
    images: list[tuple[str, tuple[int, int]]]


class Saved(NamedTuple):
    """So many images of an output slot are on the disk."""

    slot: int
    count: int
    spans: list[tuple[str, str, int, int, int]]
    cpu_seconds: float


class Broken(NamedTuple):
    """The task ended by an exception, and the worker with it."""

    error: Exception
    trace: str


class Setup(NamedTuple):
    """The first thing that a worker is told; arrays as (shape, dtype, fd)."""

    lane: str
    parent: int
    niceness: int
    each_span: bool
    files: Files
    arrays: dict[str, tuple[tuple[int, ...], str, int]]


class Spans:
    """Notes what `p2p.profiling.clock.Clock.merge` takes in; that class imports NVTX, half of a worker's start.

    Args:
        lane: who works.
        each: hand out every span; False: one a stage that is as long as all of them, which the parent counts sooner.
    """

    def __init__(self, lane: str, *, each: bool):
        self._lane = lane
        self._each = each
        self._spans: list[tuple[str, str, int, int, int]] = []
        self._cpu_seconds = time.process_time()

    @contextmanager
    def __call__(self, stage: str, images: int = 1) -> Iterator[None]:
        """Measure the block as `stage`, at work on so many images."""
        begin = time.perf_counter_ns()
        try:
            yield
        finally:
            self._spans.append((stage, self._lane, begin, time.perf_counter_ns(), images))

    def take(self) -> tuple[list[tuple[str, str, int, int, int]], float]:
        """Spans and processor time since the last call."""
        spans, self._spans = self._spans, []
        if not self._each:
            sums: dict[str, tuple[str, str, int, int, int]] = {}
            for stage, lane, begin, end, images in spans:
                _, _, first, last, count = sums.get(stage, (stage, lane, begin, begin, 0))
                sums[stage] = (stage, lane, first, last + end - begin, count + images)
            spans = list(sums.values())
        before, self._cpu_seconds = self._cpu_seconds, time.process_time()
        return spans, self._cpu_seconds - before


class Worker:
    """Does one task after another, until its parent hangs up, dies, or asks it to stop between two images."""

    def __init__(self, setup: Setup):
        arrays = {name: SharedArray(shape, dtype, fd=fd).array for name, (shape, dtype, fd) in setup.arrays.items()}
        self._input_NHWC, self._deep_NHWC, self._output_NHWC = (arrays[name] for name in ("input", "deep", "output"))
        self._coded = arrays.get("coded")
        self._stop = arrays["stop"]
        self._parent = setup.parent
        self._files = setup.files
        self._clock = Spans(setup.lane, each=setup.each_span)

    def load(self, task: Load) -> Loaded:
        """Fill the rows of the slot."""
        sizes, coded, deep, failed = {}, {}, [], {}
        for row, (name, path, half) in enumerate(task.images, task.first):
            self._go_on()
            pair = Pair(name, Source(Path(path), half))
            try:
                data = None
                if self._coded is not None:
                    with self._clock("decode", images=0):
                        data = read_file(pair.input)
                        size = self._files.gpu_size(pair, data)
                    if size is not None and len(data) <= self._coded.shape[2]:
                        self._coded[task.slot, row, : len(data)] = np.frombuffer(data, np.uint8)
                        sizes[row], coded[row] = size, len(data)
                        continue
                frame_HWC, sizes[row] = self._files.load(pair, self._clock, data=data)
            except ValueError as error:
                failed[row] = str(error)
                continue
            with self._clock("preprocess", images=0):
                if frame_HWC.dtype == np.uint8:
                    self._input_NHWC[task.slot, row] = frame_HWC
                else:
                    self._deep_NHWC[task.slot, row] = frame_HWC
                    deep.append(row)
        return Loaded(task.slot, len(task.images), sizes, coded, deep, failed, *self._clock.take())

    def save(self, task: Save) -> Saved:
        """Write the rows of the slot."""
        for row, (name, size) in enumerate(task.images, task.first):
            self._go_on()
            self._files.save(name, self._output_NHWC[task.slot, row], size, self._clock)
        return Saved(task.slot, len(task.images), *self._clock.take())

    def _go_on(self) -> None:
        if self._stop[0] or os.getppid() != self._parent:
            sys.exit()


def main(fd: int) -> None:
    """Serve the parent at the other end of a connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    parent = Connection(fd)
    try:
        setup = parent.recv()
        os.nice(setup.niceness)
        worker = Worker(setup)
        parent.send(None)  # ready
        while True:
            task = parent.recv()
            parent.send(worker.load(task) if isinstance(task, Load) else worker.save(task))
    except (EOFError, ConnectionError):  # the parent is done, or dead
        return
    except Exception as error:  # whatever it is, it is the parent's to raise
        with suppress(ConnectionError):  # nobody listens
            parent.send(Broken(_picklable(error), traceback.format_exc()))


def _picklable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # of the error's own class, which may do anything when it is pickled
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
