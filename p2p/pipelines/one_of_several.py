"""What runs in a process of `p2p.pipelines.device_processes`, one of several devices: `overlap` on its share."""

from __future__ import annotations

import io
import logging
import os
import signal
import socket
import sys
import time
from contextlib import redirect_stdout
from functools import partial
from multiprocessing.connection import Connection
from types import FrameType
from typing import NamedTuple

from p2p.pipelines.groups import Groups
from p2p.pipelines.job import Job
from p2p.pipelines.messages import Broken
from p2p.pipelines.processes import early
from p2p.pipelines.share import Granted
from p2p.pipelines.slots import PairTable, SharedArray
from p2p.pipelines.worker import broken
from p2p.profiling.clock import Clock
from p2p.system.gpu_faults import TooSmall, failure, in_numbers, memory_full
from p2p.system.memory import keep_freed_memory, share_memory

PULSE_S = 10.0  # between two signs of life


class Begin(NamedTuple):
    """The first thing that a device's process is told, before it imports torch.

    Attributes:
        cores: that are its own; none: as its parent's.
        workers: to start at once.
        devices: that share the machine.
        speaks: whether warnings are its own to print.
    """

    cores: set[int]
    workers: int
    devices: int
    speaks: bool


class Images(NamedTuple):
    """What there is to do; the file descriptors of the arrays are sent behind it.

    Attributes:
        arrays: as (shape, dtype), by name: those of `p2p.pipelines.slots.share_pairs`, the marks of
            `p2p.pipelines.share.Granted`, and for images at their own sizes "rows" and "starts" of their `Groups`.
        large: of these `Groups`.
    """

    arrays: dict[str, tuple]
    large: int


class FailedImage(NamedTuple):
    """One image cannot be translated."""

    name: str
    stage: str
    reason: str


class Said(NamedTuple):
    """A line that is for the user."""

    line: str


class Lost(NamedTuple):
    """This device is no longer of use, and why; another one may be."""

    reason: str


class Alive(NamedTuple):
    """A batch of an image is done, which may take long as a whole."""


class Idle(NamedTuple):
    """Nothing was granted any more; what was is done."""


class Pulse:
    """Tells the parent now and then that there is progress."""

    def __init__(self, parent: Connection):
        self._parent, self._next_s = parent, 0.0

    def __call__(self) -> None:
        """After some work."""
        if (now := time.monotonic()) >= self._next_s:
            self._next_s = now + PULSE_S
            self._parent.send(Alive())


class Lines(io.TextIOBase):
    """Where `print` goes: each line to the parent."""

    def __init__(self, parent: Connection):
        self._parent, self._begun = parent, ""

    def write(self, text: str) -> int:
        """Send the lines that are whole."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._parent.send(Said(line))
        return len(text)


def main(fd: int) -> None:
    """Work for the parent at the other end of a connection, until it hangs up."""
    for number in (signal.SIGINT, signal.SIGHUP):  # of all processes of a job; the parent decides
        signal.signal(number, signal.SIG_IGN)
    parent = Connection(fd)
    try:
        begin: Begin = parent.recv()
        if begin.cores:  # before torch counts them
            os.sched_setaffinity(0, begin.cores)
        if not begin.speaks:
            logging.disable(logging.WARNING)
        share_memory(begin.devices)
        keep_freed_memory()
        with redirect_stdout(Lines(parent)), early() as start_workers:
            start_workers(begin.workers)
            message = serve(parent, devices=begin.devices)
        if message is not None:
            parent.send(message)
        os._exit(0)  # without destructors, which may wait for a GPU that has failed, and threads
    except (EOFError, ConnectionError):  # the parent has hung up, or is dead
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGTERM)


def serve(parent: Connection, *, devices: int) -> Lost | Broken | None:
    """Translate what the parent grants; returns what has ended that, None when all is done."""
    clock = Clock()
    try:
        with clock("init"):
            from p2p.pipelines import overlap
            from p2p.pipelines.load import load_stages
            from p2p.system.device import pick_device
    except Exception as error:
        return broken(error)
    signal.signal(signal.SIGTERM, _stop)
    job: Job = parent.recv()
    images: Images = parent.recv()
    with socket.socket(fileno=os.dup(parent.fileno())) as line:
        _, fds, *_ = socket.recv_fds(line, 1, len(images.arrays))
    arrays = {
        name: SharedArray(*facts, fd=fd).array for (name, facts), fd in zip(images.arrays.items(), fds, strict=True)
    }
    table = PairTable(arrays["text"], arrays["ends"])
    pairs = [table[number] for number in range(len(arrays["ends"]))]
    plan = Groups(pairs, arrays["rows"], arrays["starts"].tolist(), images.large) if "rows" in arrays else None
    try:
        if job.each_span:
            clock.keep_spans()
        with clock("init"):
            stages = load_stages(job, device=pick_device(job.device), clock=clock)
        stages.on_failure = lambda pair, *failure: parent.send(FailedImage(pair.name, *failure))
        stages.on_batch = Pulse(parent)
        batch_size = min(job.batch_size, len(pairs))
        translate = partial(overlap.run, batch_size=batch_size, slots=job.slots, workers=job.workers)
    except Exception as error:
        return lost(error) or broken(error)
    while True:
        try:
            translate(pairs, stages, share=Granted(parent, arrays["marks"], devices=devices, plan=plan))
        except Exception as error:  # of a disk or a network, say; if it is the parent's end, sending meets that again
            return lost(error) or broken(error)
        except KeyboardInterrupt:
            parent.send(clock.measured())
            raise
        parent.send(Idle())
        if not parent.recv():  # whether a device that is lost has left something
            parent.send(clock.measured())
            return None


def _stop(number: int, frame: FrameType | None) -> None:
    """Images in hand are finished, no others; being told once more changes nothing."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def lost(error: Exception) -> Lost | None:
    """Why the device is of no more use; None for an error that another one would meet, too."""
    if isinstance(error, TooSmall):
        return Lost(str(error))
    if (said := memory_full(error)) is not None:
        return Lost(f"the GPU's memory is full{in_numbers(said)}")
    reason = failure(error)
    return None if reason is None else Lost(f"the GPU failed: {reason}")
