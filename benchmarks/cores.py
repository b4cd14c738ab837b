"""Limit this process and its children to some of the cores, and measure their processor time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@contextmanager
def limited_to(count: int) -> Iterator[None]:
    """The first `count` of the cores that this process may use; all of them again afterwards.

    A thread has a set of cores of its own, which its later children and threads get: those that are there already, such
    as torch's and CUDA's, are told one by one. torch gets no more threads than cores, as on a machine that small.
    """
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    assert 0 < count <= len(cores)
    try:
        _use(set(sorted(cores)[:count]))
        torch.set_num_threads(min(threads, count))
        yield
    finally:
        _use(cores)
        torch.set_num_threads(threads)


def cpu_seconds() -> float:
    """Processor time, user and system, of this process and its children, also of those that have ended."""
    stats = _stats()
    # Fields 14 to 17 of proc(5): its own time, and its ended children's.
    return sum(sum(map(int, stats[process][11:15])) for process in _tree(stats)) / TICKS_PER_S


def _use(cores: set[int]) -> None:
    for process in _tree(_stats()):
        for thread in (PROC / f"{process}/task").glob("*"):  # none, if it has ended meanwhile
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), cores)


def _tree(stats: dict[int, list[str]]) -> list[int]:
    """This process, its children, theirs, and so on."""
    found = [os.getpid()]
    for process in found:
        found += [child for child, fields in stats.items() if int(fields[1]) == process]
    return found


def _stats() -> dict[int, list[str]]:
    """What proc(5) says of each process, from its third field on: those behind the name, which is in brackets."""
    found = {}
    for path in PROC.glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found[int(path.parent.name)] = path.read_text().rpartition(")")[2].split()
    return found
