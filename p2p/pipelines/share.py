"""A pipeline's share of the images: all of them, or what it is granted while other devices work at the others.

Shares are not fixed beforehand: whoever has time asks for the next few slots. So a GPU that is slower, or has larger
files, or is lost, gets fewer images, and all are done at about the same time. Slots begin at multiples of their size,
and images at their own sizes are grouped before they are shared, so that batches hold the same images as on one device,
and files the same bytes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import pairwise
from multiprocessing.connection import Connection
from typing import NamedTuple, Protocol

import numpy as np

from p2p.pipelines.groups import Groups

MOST = 8  # slots of a grant: enough that the next one has come before these are in work
PARTS = 4  # of what is left for each device, of which a grant is one: towards the end they are single slots


class Share(Protocol):
    """What of a list of pairs is one pipeline's to do.

    Attributes:
        devices: that share the list.
        plan: of images at their own sizes, where it is made already.
    """

    devices: int
    plan: Groups | None

    def groups(self, rows: np.ndarray, starts: Sequence[int], *, large: bool = False) -> Iterator[np.ndarray]:
        """What the slots of this pipeline hold, of the rows of images; waits for the next where it must.

        Args:
            starts: the rows at which slots begin; the last one ends with the rows.
            large: these are the images at the end of a plan, which have no slots.
        """

    def done(self, numbers: np.ndarray) -> None:
        """The images at these places are on the disk, or have failed."""


class All:
    """The whole list."""

    devices = 1
    plan: Groups | None = None

    def groups(self, rows: np.ndarray, starts: Sequence[int], *, large: bool = False) -> Iterator[np.ndarray]:
        """One after another."""
        return (rows[first:stop] for first, stop in pairwise([*starts, len(rows)]))

    def done(self, numbers: np.ndarray) -> None:
        """Nobody else asks."""


class Want(NamedTuple):
    """Asks for the next slots of such a size, or for groups as they are planned, of whole images or of large ones."""

    slot_size: int | None
    large: bool = False


class Granted:
    """What the parent grants, see `Queue`.

    Args:
        parent: answers each `Want` by the first image and the one behind the last, or None.
        marks: uint8 (images,), in shared memory: 1 for those that are done.
        devices: that share the list.
        plan: see `Share`.
    """

    def __init__(self, parent: Connection, marks: np.ndarray, *, devices: int, plan: Groups | None = None):
        self._parent, self._marks, self.devices, self.plan = parent, marks, devices, plan

    def groups(self, rows: np.ndarray, starts: Sequence[int], *, large: bool = False) -> Iterator[np.ndarray]:
        """The next grant is asked for while this one is in work; of planned groups, which take long, when it is done.

        Otherwise one device would have the last two, and another one none.
        """
        ahead = self.plan is None
        want = Want(starts.step if isinstance(starts, range) and ahead else None, large)
        self._parent.send(want)
        while grant := self._parent.recv():
            if ahead:
                self._parent.send(want)
            yield from (rows[first:stop] for first, stop in slots_in(grant, starts))
            if not ahead:
                self._parent.send(want)

    def done(self, numbers: np.ndarray) -> None:
        """Where the parent sees it, also if this process is killed."""
        self._marks[numbers] = 1


def cuts(images: tuple[int, int], starts: Sequence[int]) -> Sequence[int]:
    """Where slots begin in a range of images, behind its first one."""
    first, stop = images
    return starts[bisect_right(starts, first) : bisect_left(starts, stop)]


def slots_in(images: tuple[int, int], starts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The slots of a range of images, as ranges."""
    first, stop = images
    return pairwise([first, *cuts(images, starts), stop])


class Queue:
    """The images that no device has, as ranges: first one, and the one behind the last.

    Args:
        images: of the list.
        devices: that share it.
        large: the first of those that are asked for by themselves, if there are any.
    """

    def __init__(self, images: int, *, devices: int, large: int | None = None):
        self._large = images if large is None else large
        self._ranges = deque(each for each in ((0, self._large), (self._large, images)) if each[0] < each[1])
        self._devices = devices

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def take(self, starts: Sequence[int], *, large: bool = False) -> tuple[int, int] | None:
        """The next few slots, which begin there; None where nothing is left."""
        ranges = [each for each in self._ranges if (each[0] >= self._large) == large]
        if not ranges:
            return None
        first, stop = ranges[0]
        inside = cuts((first, stop), starts)
        left = sum(1 + len(cuts(each, starts)) for each in ranges)
        slots = max(1, min(MOST, left // (self._devices * PARTS)))
        cut = inside[slots - 1] if slots <= len(inside) else stop
        at = self._ranges.index((first, stop))
        del self._ranges[at]
        if cut < stop:
            self._ranges.insert(at, (cut, stop))
        return first, cut

    def give_back(self, grants: Iterable[tuple[int, int]], *, starts: Sequence[int], marks: np.ndarray) -> int:
        """The slots that a lost device has not finished, whole, as batches hold the same images; of how many images."""
        slots = [each for grant in grants for each in slots_in(grant, starts)]
        open_slots = [(first, stop) for first, stop in slots if not marks[first:stop].all()]
        self._ranges.extend(open_slots)
        return sum(stop - first for first, stop in open_slots)

    def images(self) -> Collection[int]:
        """The places of those that are left."""
        return [number for first, stop in self._ranges for number in range(first, stop)]
