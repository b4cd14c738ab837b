"""Codecs that fail, for the tests; workers import this file, so it imports no pytest and no torch."""

import os
import resource
import signal
import time
from pathlib import Path

from p2p.codecs.pillow import Pillow
from p2p.system import atomic


class Codec(Pillow):
    """Does `how` at the `at`-th call of `stage` in each process; None for every call."""

    def __init__(self, stage, how, at=3, format="npy"):
        super().__init__(format=format)
        self._stage, self._how, self._at, self._calls = stage, how, at, 0

    def decode(self, data, *, channels=3):
        self._count("decode")
        return super().decode(data, channels=channels)

    def encode(self, frame_HWC):
        self._count("encode")
        return super().encode(frame_HWC)

    def _count(self, stage):
        if stage == self._stage:
            self._calls += 1
            if self._at in (None, self._calls):
                HOW[self._how]()


def raise_bug():
    raise KeyError("a bug in the codec")


def fill_the_disk():
    """From now on no file of this process gets longer than 100 bytes: writing fails halfway through."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def lose_the_disk():
    raise ConnectionAbortedError(103, "Software caused connection abort")


def work():
    """5 ms of processor time."""
    end = time.process_time() + 0.005
    while time.process_time() < end:
        pass


def reuse_memory():
    """What an image frees, the next one gets; the system would have to map it page by page."""
    for _ in range(20):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [bytearray(400_000) for _ in range(3)]
        del blocks
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 100


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_before_the_name():
    os.link = lambda *_, **__: kill()


def kill_before_the_rename():
    atomic.nameless = lambda *_: False
    Path.replace = lambda *_: kill()


def lack_memory():
    raise MemoryError


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(one)


def raise_unpicklable():
    raise Unpicklable("of another world", 2)


HOW = {
    "bug": raise_bug,
    "unpicklable": raise_unpicklable,
    "disk full": fill_the_disk,
    "disk lost": lose_the_disk,
    "no memory": lack_memory,
    "kill": kill,
    "kill before the name": kill_before_the_name,
    "kill before the rename": kill_before_the_rename,
    "hang": lambda: time.sleep(60),
    "slow": lambda: time.sleep(0.02),
    "work": work,
    "reuse memory": reuse_memory,
}


class Cropping(Pillow):
    """Has a bug: its frames lack a channel."""

    def decode(self, data, *, channels=3):
        return super().decode(data, channels=channels)[..., 1:]


class NotHere(Pillow):
    """Cannot be made in a worker."""

    def __setstate__(self, state):
        raise ImportError("its library is not installed here")
