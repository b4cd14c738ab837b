"""Several devices, each with an `overlap` in a process of its own, at work on one list of images.

    this process      Want 0 -> slots 0-7 | Want 1 -> slots 8-15 | Want 0 -> slots 16-23 | ...
    cuda:0            [ overlap on the cores near it: load, generate, save ]
    cuda:1            [ the same there                                     ]

A process for each, since Python runs one thread at a time, and the loop of one `overlap` keeps it busy. Whoever has
time gets the next slots (`p2p.pipelines.share`). The processes write the images, and say here what failed; this one
has the bar, the list of failures, the clock and the exit status. It touches no image and imports no torch.

A device that is lost, by a failure of the GPU or a kill, leaves what it had not finished to the others. Any other
error ends the run as on one device.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from os import dup

import numpy as np

from p2p.data.pairs import Pair
from p2p.pipelines.job import Job
from p2p.pipelines.messages import Broken
from p2p.pipelines.one_of_several import Begin, Failed, Idle, Images, Lost, Said
from p2p.pipelines.outcome import Outcome
from p2p.pipelines.processes import start
from p2p.pipelines.share import Queue, Want
from p2p.pipelines.slots import SharedArray, share_pairs
from p2p.pipelines.workers import TraceOfWorker, default_workers
from p2p.profiling.clock import Clock, Measured
from p2p.system.cores import divide_cores, near_gpu
from p2p.system.gpus import gpu_addresses, one_gpu

TICK_S = 0.1  # between two looks at the marks, for the bar
PATIENCE_S = 5.0  # for the images in hand, when all is over
NAMED = 3  # of the images that are missing


@dataclass
class Device:
    """A device and its process.

    Attributes:
        name: for messages and tables.
        device: what it is called in its process, which sees no other GPU.
        slot_size: of its grants; None before it has asked for one.
        grants: what it may not have finished yet.
        idle: it waits.
    """

    name: str
    device: str
    connection: Connection
    process: subprocess.Popen
    slot_size: int | None = None
    grants: list[tuple[int, int]] = field(default_factory=list)
    idle: bool = False


@contextmanager
def started(names: Sequence[str], *, images: int, batch_size: int, workers: int | None) -> Iterator[list[Device]]:
    """A process for each device, with its part of the cores, that imports what it needs; ended with the block.

    Args:
        names: see `p2p.system.device.find_devices`.
        images, batch_size, workers: which tell how many workers each is going to have.
    """
    addresses = gpu_addresses() if names[0] != "cpu" else []
    numbers = [int(name.partition(":")[2]) if addresses else None for name in names]
    shares = divide_cores([set() if number is None else near_gpu(addresses[number]) for number in numbers])
    devices: list[Device] = []
    try:
        for place, (name, number, cores) in enumerate(zip(names, numbers, shares, strict=True)):
            environment = {} if number is None else one_gpu(number)
            connection, process = start("one_of_several", **environment)
            shown = name if number is not None else f"process {place}"
            devices.append(Device(shown, "cpu" if number is None else "cuda:0", connection, process))
            most = default_workers(-(-images // len(names)), batch_size=batch_size, cores=len(cores) or None)
            begin = Begin(cores, most if workers is None else min(workers, most), len(names), speaks=place == 0)
            tell(devices[-1], begin)
        yield devices
    except BaseException:
        for device in devices:
            device.process.terminate()
        raise
    finally:
        end(devices)


def run(pairs: list[Pair], devices: list[Device], job: Job, *, outcome: Outcome, clock: Clock) -> None:
    """Translate all pairs' inputs.

    Args:
        devices: that were `started`, and have had no work yet.
        job: for each; its `device` is replaced.
        outcome: is told what becomes of the images.
        clock: is given what all have measured.

    Raises:
        ValueError: every device is lost, and images are missing.
        Exception: whatever a stage raised.
    """
    if not pairs:
        return
    arrays = share_pairs(pairs) | {"marks": SharedArray((len(pairs),), "uint8")}
    for device in devices:
        tell(device, job._replace(device=device.device))
        tell(device, Images(*((array.shape, array.dtype) for array in arrays.values())))
        with suppress(ConnectionError), socket.socket(fileno=dup(device.connection.fileno())) as line:
            socket.send_fds(line, [b"."], [array.fd for array in arrays.values()])
    work = Work(pairs, devices, outcome, marks=arrays["marks"])
    try:
        work.until_done()
        clock.join(work.measured(), images=len(pairs))
    except BaseException:
        clock.join(work.stop(), images=len(pairs))
        raise
    finally:
        for array in arrays.values():
            array.close()


class Work:
    """One list of images, and who has which of them.

    Args:
        pairs, devices, outcome: see `run`.
        marks: of the images that are done.
    """

    def __init__(self, pairs: list[Pair], devices: list[Device], outcome: Outcome, *, marks: SharedArray):
        self._pairs, self._outcome, self._marks = pairs, outcome, marks.array
        self._queue = Queue(len(pairs), devices=len(devices))
        self._devices = [*devices]  # that are left
        self._said: set[str] = set()
        self._numbers: dict[str, int] = {}  # of pairs by their names, when one has failed
        self._shown, self._next_s = 0, 0.0  # images on the bar, and when to look again

    def until_done(self) -> None:
        """Answer the devices until all images are done, and none is at work."""
        while self._queue or not self._marks.all():
            self._wake()
            self._answer(TICK_S)
            self._show()
        self._show(now=True)
        while not all(device.idle or device.slot_size is None for device in self._devices):
            self._answer(None)

    def measured(self) -> dict[str, Measured]:
        """Let the devices end, and return what each has measured, by its name."""
        found = {}
        for device in self._devices:
            if device.slot_size is None:  # it comes too late for so few images
                device.process.terminate()
                continue
            tell(device, False)
            with suppress(EOFError, OSError):  # killed when nothing was left to do
                found[device.name] = device.connection.recv()
        return found

    def stop(self) -> dict[str, Measured]:
        """End the devices, and return what each has measured; images in hand are finished, what failed is heard."""
        found = {}
        for device in self._devices:
            device.process.terminate()
        deadline = time.monotonic() + PATIENCE_S
        while self._devices and (left := deadline - time.monotonic()) > 0:
            for ready in wait([device.connection for device in self._devices], left):
                device = next(each for each in self._devices if each.connection is ready)
                try:
                    message = device.connection.recv()
                except (EOFError, OSError):
                    self._devices.remove(device)
                    continue
                if isinstance(message, Failed):
                    self._fail(message)
                elif isinstance(message, Measured):
                    found[device.name] = message
        return found

    def _wake(self) -> None:
        """Have those that wait do what a lost one has left."""
        for device in self._devices:
            if device.idle and self._queue:
                device.idle = False
                tell(device, True)

    def _answer(self, wait_s: float | None) -> None:
        for ready in wait([device.connection for device in self._devices], wait_s):
            device = next(each for each in self._devices if each.connection is ready)
            try:
                message = device.connection.recv()
            except (EOFError, OSError):  # at once, or in the middle of a message
                message = Lost(how_it_ended(device.process))
            self._heed(device, message)

    def _heed(self, device: Device, message: object) -> None:
        match message:
            case Want(slot_size):
                device.slot_size = slot_size
                device.grants = [each for each in device.grants if not self._marks[slice(*each)].all()]
                if (grant := self._queue.take(slot_size)) is not None:
                    device.grants.append(grant)
                tell(device, grant)
            case Idle():
                device.idle, device.grants = True, []
            case Failed():
                self._fail(message)
            case Said(line):
                if line not in self._said:
                    self._said.add(line)
                    print(line)
            case Lost(reason):
                self._lose(device, reason)
            case Broken(error, trace):
                raise error from TraceOfWorker(trace)

    def _lose(self, device: Device, reason: str) -> None:
        self._devices.remove(device)
        left = self._queue.give_back(device.grants, slot_size=device.slot_size or 1, marks=self._marks)
        if self._marks.all():  # it had only to end
            return
        if self._devices:
            print(f"{device.name} is lost ({reason}): the others go on, also with its last {left} images")
            return
        missing = [number for number in self._queue.images() if not self._marks[number]]
        names = ", ".join(self._pairs[number].name for number in missing[:NAMED])
        raise ValueError(
            f"{device.name} is lost ({reason}), and no other device is left: {len(missing)} of {len(self._pairs)}"
            f" images are missing, {names}{', ...' if len(missing) > NAMED else ''}: skip_existing=true goes on"
        )

    def _fail(self, failed: Failed) -> None:
        self._numbers = self._numbers or {pair.name: number for number, pair in enumerate(self._pairs)}
        number = self._numbers[failed.name]
        if failed.name not in self._outcome.failures:  # found again by the heir of a lost device
            self._outcome.fail(self._pairs[number], failed.stage, failed.reason)
            self._shown += 1
        self._marks[number] = 1

    def _show(self, *, now: bool = False) -> None:
        if not now and time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + TICK_S
        done = int(np.count_nonzero(self._marks))
        for _ in range(done - self._shown):
            self._outcome.on_image()
        self._shown = max(done, self._shown)


def tell(device: Device, message: object) -> None:
    """Send a message; to a process that is dead it says nothing, which the next answer finds out."""
    with suppress(ConnectionError):
        device.connection.send(message)


def how_it_ended(process: subprocess.Popen) -> str:
    """ "its process ended by SIGKILL"."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(1.0)
    code = process.returncode
    if code is not None and code < 0:
        hint = ", as where memory ran out" if code == -signal.SIGKILL else ""
        return f"its process was ended by {signal.Signals(-code).name}{hint}"
    return f"its process ended with exit status {code}"


def end(devices: list[Device]) -> None:
    """Wait for the processes, which have nothing to do any more, and kill what does not end."""
    for device in devices:
        device.connection.close()
    deadline = time.monotonic() + PATIENCE_S
    try:
        for device in devices:
            with suppress(subprocess.TimeoutExpired):
                device.process.wait(max(0.0, deadline - time.monotonic()))
    finally:  # after a second Ctrl-C, too
        for device in devices:
            device.process.kill()
            device.process.wait()
