"""Fewer cores than there are, for this process and all that it has started or will start; and their processor time."""

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
    return sum(_of_one(process) for process in _processes(os.getpid()))


def _use(cores: set[int]) -> None:
    for process in _processes(os.getpid()):
        for thread in _threads(process):
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.sched_setaffinity(thread, cores)


def _processes(process: int) -> list[int]:
    """A process, its children, theirs, and so on."""
    found = [process]
    for thread in _threads(process):
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in (PROC / f"{process}/task/{thread}/children").read_text().split():
                found += _processes(int(child))
    return found


def _threads(process: int) -> list[int]:
    try:
        return [int(each.name) for each in (PROC / f"{process}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _of_one(process: int) -> float:
    with suppress(FileNotFoundError, ProcessLookupError):
        # After the name, which is in brackets: fields 14 to 17 of proc(5), its own and its ended children's time.
        fields = (PROC / f"{process}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / TICKS_PER_S
    return 0.0
