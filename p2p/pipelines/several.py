"""Several devices, each with an `overlap` in a process of its own, at work on one list of images.

    this process      Want 0 -> slots 0-7 | Want 1 -> slots 8-15 | Want 0 -> slots 16-23 | ...
    cuda:0            [ overlap on the cores near it: load, generate, save ]
    cuda:1            [ the same there                                     ]

A process for each, since Python runs one thread at a time, and the loop of one `overlap` keeps it busy. Whoever has
time gets the next slots (`p2p.pipelines.share`). Images at their own sizes are grouped here, by their headers, while
the processes import torch. The processes write the images, and say here what failed; this one
has the bar, the list of failures, the clock and the exit status. It imports no torch.

A device that is lost, by a failure of the GPU, a kill, or because it hangs, leaves what it had not finished to the
others. Any other error ends the run as on one device.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from multiprocessing.connection import wait
from os import dup

import numpy as np

from p2p.data.pairs import Pair
from p2p.pipelines import groups
from p2p.pipelines.device_processes import PATIENCE_S, Device, how_it_ended, tell
from p2p.pipelines.groups import Groups
from p2p.pipelines.job import Job
from p2p.pipelines.messages import Broken
from p2p.pipelines.one_of_several import Alive, FailedImage, Idle, Images, Lost, Said
from p2p.pipelines.outcome import Outcome
from p2p.pipelines.share import Queue, Want
from p2p.pipelines.slots import SharedArray, share_pairs
from p2p.pipelines.workers import TraceOfWorker
from p2p.profiling.clock import Clock, Measured
from p2p.system.plural import counted

TICK_S = 0.1  # between two looks at the marks, for the bar
SILENCE = 6000  # looks, 10 minutes as for NCCL, after which a device that says and finishes nothing is lost
END_S = 30.0  # for what a device has to do when all images are done
NAMED = 3  # of the images that are missing


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
    plan = None
    if job.size != "model":
        batch_size = min(job.batch_size, len(pairs))
        plan = groups.plan(pairs, job.files(), job.manifest, size=job.size, batch_size=batch_size)
        pairs = plan.pairs
    arrays = share_pairs(pairs) | {"marks": SharedArray((len(pairs),), "uint8")}
    if plan is not None:
        arrays |= {"rows": SharedArray.of(plan.rows), "starts": SharedArray.of(np.array(plan.starts))}
    described = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    images = Images(described, plan.large if plan else 0)
    for device in devices:
        tell(device, job._replace(device=device.device))
        tell(device, images)
        with suppress(ConnectionError), socket.socket(fileno=dup(device.connection.fileno())) as line:
            socket.send_fds(line, [b"."], [array.fd for array in arrays.values()])
    work = Work(pairs, devices, outcome, marks=arrays["marks"], plan=plan)
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
        plan: of images at their own sizes.
    """

    def __init__(
        self,
        pairs: list[Pair],
        devices: list[Device],
        outcome: Outcome,
        *,
        marks: SharedArray,
        plan: Groups | None = None,
    ):
        self._pairs, self._outcome, self._marks, self._plan = pairs, outcome, marks.array, plan
        self._queue = Queue(len(pairs), devices=len(devices), large=plan and plan.large)
        self._devices = [*devices]  # that are left
        self._said: set[str] = set()
        self._numbers: dict[str, int] = {}  # of pairs by their names, when one has failed
        self._shown, self._next_s = 0, 0.0  # images on the bar, and when to look again

    def until_done(self) -> None:
        """Answer the devices until all images are done, and none is at work."""
        while self._queue or not self._marks.all():
            self._wake()
            self._answer(TICK_S)
            if time.monotonic() >= self._next_s:
                self._next_s = time.monotonic() + TICK_S
                self._show()
                self._lose_silent()
        self._show()
        deadline = time.monotonic() + END_S
        while not all(device.idle or device.starts is None for device in self._devices):
            if (left := deadline - time.monotonic()) <= 0:
                return
            self._answer(left)

    def measured(self) -> dict[str, Measured]:
        """Let the devices end, and return what each has measured, by its name; of one that hangs nothing."""
        found = {}
        for device in self._devices:
            if device.starts is None:  # it comes too late for so few images
                device.process.terminate()
                continue
            tell(device, False)
        deadline = time.monotonic() + END_S
        for device in self._devices:
            if device.starts is None:
                continue
            with suppress(EOFError, OSError):  # killed when nothing was left to do
                if device.idle and device.connection.poll(max(0.0, deadline - time.monotonic())):
                    found[device.name] = device.connection.recv()
                    continue
                print(f"{device.name} hangs, and is ended: all images are done, and the table is without it")
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
                if isinstance(message, FailedImage):
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

    def _answer(self, wait_s: float) -> bool:
        """A message of each device that has one, within that time; whether there was any."""
        answered = wait([device.connection for device in self._devices], wait_s)
        for ready in answered:
            device = next(each for each in self._devices if each.connection is ready)
            device.silent = 0
            try:
                message = device.connection.recv()
            except (EOFError, OSError):  # at once, or in the middle of a message
                message = Lost(how_it_ended(device.process))
            self._heed(device, message)
        return bool(answered)

    def _heed(self, device: Device, message: object) -> None:
        match message:
            case Want(slot_size, large):
                planned = self._plan.starts if self._plan is not None else [0]
                device.starts = planned if slot_size is None else range(0, len(self._pairs), slot_size)
                device.grants = [each for each in device.grants if not self._marks[slice(*each)].all()]
                if (grant := self._queue.take(device.starts, large=large)) is not None:
                    device.grants.append(grant)
                tell(device, grant)
            case Idle():
                device.idle, device.grants = True, []
            case FailedImage():
                self._fail(message)
            case Alive():  # which `_answer` has noted
                pass
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
        starts = [0] if device.starts is None else device.starts
        left = self._queue.give_back(device.grants, starts=starts, marks=self._marks)
        if self._marks.all():  # it had only to end
            return
        if self._devices:
            also = f", and translate its last {counted(left, 'image')}" if left else ""
            print(f"{device.name} is lost ({reason}): the others continue{also}")
            return
        missing = [number for number in self._queue.images() if not self._marks[number]]
        names = ", ".join(self._pairs[number].name for number in missing[:NAMED])
        raise ValueError(
            f"{device.name} is lost ({reason}), and no other device is left: of"
            f" {counted(len(self._pairs), 'image')} {counted(len(missing), 'is', 'are')} missing,"
            f" {names}{', ...' if len(missing) > NAMED else ''}: run it again with skip_existing=true"
        )

    def _fail(self, failed: FailedImage) -> None:
        self._numbers = self._numbers or {pair.name: number for number, pair in enumerate(self._pairs)}
        number = self._numbers[failed.name]
        if failed.name not in self._outcome.failures:  # found again by the heir of a lost device
            self._outcome.fail(self._pairs[number], failed.stage, failed.reason)
            self._shown += 1
        self._marks[number] = 1

    def _lose_silent(self) -> None:
        """Go on without a device that hangs, such as in its driver; called once in a tick."""
        for device in [each for each in self._devices if not each.idle]:
            done = sum(int(np.count_nonzero(self._marks[slice(*grant)])) for grant in device.grants)
            device.silent = device.silent + 1 if done == device.done else 0
            device.done = done
            if device.silent >= SILENCE:
                device.process.kill()  # or it might go on beside its heirs
                self._lose(device, f"it hangs, and has done nothing for {SILENCE * TICK_S:.0f} seconds")

    def _show(self) -> None:
        done = int(np.count_nonzero(self._marks))
        while self._answer(0.0):  # a failure is told before its image is marked, and must not count twice
            pass
        for _ in range(done - self._shown):
            self._outcome.on_image()
        self._shown = max(done, self._shown)
