"""A pipeline's share of the images: all of them, or what it is granted while other devices work at the others.

Shares are not fixed beforehand: whoever has time asks for the next few slots. So a GPU that is slower, or has larger
files, or is lost, gets fewer images, and all are done at about the same time. Slots begin at multiples of their size,
so that batches hold the same images as on one device, and files the same bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import NamedTuple, Protocol

import numpy as np

MOST = 8  # slots of a grant: enough that the next one has come before these are in work
PARTS = 4  # of what is left for each device, of which a grant is one: towards the end they are single slots


class Share(Protocol):
    """What of a list of pairs is one pipeline's to do.

    Attributes:
        devices: that share the list.
    """

    devices: int

    def groups(self, rows: np.ndarray, slot_size: int) -> Iterator[np.ndarray]:
        """What the slots of this pipeline hold, of the rows of all images; waits for the next where it must."""

    def done(self, numbers: np.ndarray) -> None:
        """The images at these places are on the disk, or have failed."""


class All:
    """The whole list."""

    devices = 1

    def groups(self, rows: np.ndarray, slot_size: int) -> Iterator[np.ndarray]:
        """One after another."""
        return (rows[start : start + slot_size] for start in range(0, len(rows), slot_size))

    def done(self, numbers: np.ndarray) -> None:
        """Nobody else asks."""


class Want(NamedTuple):
    """Asks for the next slots of such a size."""

    slot_size: int


class Granted:
    """What the parent grants, see `Queue`.

    Args:
        parent: answers each `Want` by the first image and the one behind the last, or None.
        marks: uint8 (images,), in shared memory: 1 for those that are done.
        devices: that share the list.
    """

    def __init__(self, parent: Connection, marks: np.ndarray, *, devices: int):
        self._parent, self._marks, self.devices = parent, marks, devices

    def groups(self, rows: np.ndarray, slot_size: int) -> Iterator[np.ndarray]:
        """The next grant is asked for while this one is in work."""
        self._parent.send(Want(slot_size))
        while grant := self._parent.recv():
            self._parent.send(Want(slot_size))
            first, stop = grant
            yield from (rows[start : min(start + slot_size, stop)] for start in range(first, stop, slot_size))

    def done(self, numbers: np.ndarray) -> None:
        """Where the parent sees it, also if this process is killed."""
        self._marks[numbers] = 1


class Queue:
    """The images that no device has, as ranges: first one, and the one behind the last.

    Args:
        images: of the list.
        devices: that share it.
    """

    def __init__(self, images: int, *, devices: int):
        self._ranges = deque([(0, images)])
        self._devices = devices

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def take(self, slot_size: int) -> tuple[int, int] | None:
        """The next few slots; None where nothing is left."""
        if not self._ranges:
            return None
        left = sum(stop - first for first, stop in self._ranges)
        slots = max(1, min(MOST, left // (slot_size * self._devices * PARTS)))
        first, stop = self._ranges.popleft()
        if (cut := first + slots * slot_size) < stop:
            self._ranges.appendleft((cut, stop))
        return first, min(cut, stop)

    def give_back(self, grants: Iterable[tuple[int, int]], *, slot_size: int, marks: np.ndarray) -> int:
        """The slots that a lost device has not finished, whole, as batches hold the same images; of how many images."""
        slots = [(at, min(at + slot_size, stop)) for first, stop in grants for at in range(first, stop, slot_size)]
        open_slots = [(first, stop) for first, stop in slots if not marks[first:stop].all()]
        self._ranges.extend(open_slots)
        return sum(stop - first for first, stop in open_slots)

    def images(self) -> Collection[int]:
        """The places of those that are left."""
        return [number for first, stop in self._ranges for number in range(first, stop)]
