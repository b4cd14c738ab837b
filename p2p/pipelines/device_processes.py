"""The processes of `p2p.pipelines.several`, one for each device: their start, their connections, their end."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from p2p.pipelines.one_of_several import Begin
from p2p.pipelines.processes import start
from p2p.pipelines.workers import default_workers
from p2p.system.cores import divide_cores, near_gpu
from p2p.system.gpus import gpu_addresses, one_gpu

PATIENCE_S = 5.0  # for the images in hand, when all is over


@dataclass
class Device:
    """A device and its process.

    Attributes:
        name: for messages and tables.
        device: what it is called in its process, which sees no other GPU.
        starts: of its slots; None before it has asked for one.
        grants: what it may not have finished yet.
        idle: it waits.
        done, silent: images of its grants when it was looked at last, and looks since it said or finished anything.
    """

    name: str
    device: str
    connection: Connection
    process: subprocess.Popen
    starts: Sequence[int] | None = None
    grants: list[tuple[int, int]] = field(default_factory=list)
    idle: bool = False
    done: int = 0
    silent: int = 0


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
        for device in devices:
            with suppress(subprocess.TimeoutExpired):  # one that hangs in its driver cannot be killed, and is left
                device.process.wait(PATIENCE_S)
