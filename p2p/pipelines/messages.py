"""What a pipeline and its workers tell each other: a few numbers, through pipes.

    tasks     one pipe, which the pipeline fills and every worker reads: who has time takes the next one.
    answers   one pipe, which every worker fills and the pipeline reads, all that is there at once.

Messages have one length and are short, so the system neither tears them nor mixes them up, and its locks are not left
locked by a process that is killed. Whatever else there is to know lies in memory that all of them share
(`p2p.pipelines.slots`). What has no place there, such as the reason for a failure, travels beside them as a `Note`.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from p2p.pipelines.files import Files

LOAD, SAVE = range(2)
STAGES = ("decode", "preprocess", "encode", "write")  # that workers work at

Failed = dict[int, tuple[str, str]]  # rows that could not be loaded or saved: at which stage, and why
Span = tuple[str, str, int, int, int]  # in the order of p2p.profiling.clock.Span


class Task(NamedTuple):
    """Load the rows of an input slot, or save those of an output slot: `count` of them from `first` on."""

    kind: int
    slot: int
    first: int
    count: int  # type: ignore[assignment]  # in the place of tuple's, here and below


class Answer(NamedTuple):
    """That task is done, by a worker, which has sent a Note first if `noted`."""

    kind: int
    slot: int
    first: int
    count: int  # type: ignore[assignment]
    worker: int
    noted: int


TASK, ANSWER = struct.Struct("<4i"), struct.Struct("<6i")


class Note(NamedTuple):
    """Beside an answer: what failed, and, for a timeline, every span of work."""

    failed: Failed
    spans: list[Span]


class Broken(NamedTuple):
    """The task ended by an exception, and the worker with it."""

    error: Exception
    trace: str


class Setup(NamedTuple):
    """The first thing that a worker is told.

    Attributes:
        index: of the worker.
        parent: process that it works for.
        niceness: to be added to its own.
        each_span: whether notes hold every span.
        files: what it does to an image.
        tasks, answers: its ends of the two pipes, as places among the file descriptors that are sent behind this.
        arrays: as (shape, dtype, place), by name: those of `p2p.pipelines.slots`, and

            stop      (1,)              set when all is over
            seconds   (workers, stages) of work, where not every span is wanted
            images    (workers, stages) that these were about
            cpu       (workers,)        seconds of processor time
    """

    index: int  # type: ignore[assignment]
    parent: int
    niceness: int
    each_span: bool
    files: Files
    tasks: int
    answers: int
    arrays: dict[str, tuple[tuple[int, ...], str | np.dtype, int]]


def lane(index: int) -> str:
    """What a worker is called in tables and timelines."""
    return f"worker {index}"
