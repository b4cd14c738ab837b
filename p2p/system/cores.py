"""How many processor cores there are to work with, and which of them each of several processes gets."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def divide_cores(near: Sequence[set[int]]) -> list[set[int]]:
    """The cores that this process may use, divided evenly among several processes; none where they cannot be bound.

    Each gets first those near it. Two threads of one core stay together. Where there are fewer cores than processes,
    all share all.

    Args:
        near: of each process the cores beside its GPU, as `near_gpu` finds them; empty: it has no preference.
    """
    count = len(near)
    if not hasattr(os, "sched_setaffinity"):  # not Linux
        return [set() for _ in near]
    left = sorted(os.sched_getaffinity(0), key=_core)
    if len(left) < count:
        return [set(left) for _ in near]
    sizes = [len(left) // count + (place < len(left) % count) for place in range(count)]
    shares: list[set[int]] = []
    for wanted, size in zip(near, sizes, strict=True):
        shares.append(set([number for number in left if number in wanted][:size]))
        left = [number for number in left if number not in shares[-1]]
    for share, size in zip(shares, sizes, strict=True):
        missing = size - len(share)
        share.update(left[:missing])
        left = left[missing:]
    return shares


def near_gpu(address: str) -> set[int]:
    """The cores of the NUMA node that a GPU hangs on, by its PCI address; none where the system does not say."""
    path = Path("/sys/bus/pci/devices") / address.lower() / "local_cpulist"
    try:
        return numbers_in(path.read_text())
    except OSError:
        return set()


def numbers_in(text: str) -> set[int]:
    """Of a list as Linux writes it: "0-2,8" -> 0, 1, 2, 8."""
    ranges = [(int(first), int(last or first)) for first, last in re.findall(r"(\d+)(?:-(\d+))?", text)]
    return {number for first, last in ranges for number in range(first, last + 1)}


def _core(number: int) -> tuple[int, int]:
    """Sorts the two threads of a core next to each other."""
    first = number
    with suppress(OSError, ValueError):
        path = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
        first = min(numbers_in(path.read_text()))
    return first, number
