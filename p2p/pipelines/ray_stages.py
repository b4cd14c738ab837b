"""What runs in the processes of Ray: the stages of `p2p.pipelines.ray`. Loading and saving import no torch."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from p2p.data.pairs import Pair
from p2p.deploy.sizes import Size
from p2p.pipelines.files import Failure, Files
from p2p.pipelines.job import Job
from p2p.pipelines.messages import Broken, Span
from p2p.pipelines.worker import Spans, broken
from p2p.system.urls import is_url

if TYPE_CHECKING:
    from p2p.pipelines.stages import Stages

Row = dict[str, Any]  # of a data set of Ray: a group, or what is to become one, pickled

T = TypeVar("T")
THREADS = 16  # of a task that waits for a store


class Image(NamedTuple):
    """One of a group, between two stages: a frame as it was loaded, or as it is to be saved, and the input's size."""

    number: int
    pair: Pair
    frame_HWC: np.ndarray
    size: Size


class Group(NamedTuple):
    """Images that go through the engine together.

    Attributes:
        failed: numbers of images that cannot be translated, with stage and reason.
        spans: how long stages took.
        broken: what ends the run.
    """

    images: list[Image]
    failed: list[tuple[int, str, str]]
    spans: list[Span]
    broken: Broken | None = None


def packed(content: object) -> Row:
    """A row that holds it."""
    return {"group": pickle.dumps(content, protocol=5)}


def stage(work: Callable[..., Group]) -> Callable[..., Row]:
    """The stage from row to row: what it raises ends the run, and travels to the driver as it is."""

    @wraps(work)
    def call(row: Row, **options: Any) -> Row:
        content = pickle.loads(row["group"])
        if isinstance(content, Group) and content.broken is not None:
            return row
        try:
            return packed(work(content, **options))
        except Exception as error:  # which Ray would wrap, or try again
            return packed(Group([], [], [], broken(error)))

    return call


@stage
def load(pairs: list[tuple[int, Pair]], *, files: Files, folder: Path) -> Group:
    """Numbers and pairs -> their group, frames as they are loaded. A task.

    Args:
        folder: that relative paths start from.
    """
    enter(folder)
    clock = Spans(f"worker {os.getpid()}")
    images, failed = [], []
    read = at_once(files.read, [pair for _, pair in pairs], far=is_url(pairs[0][1].input.path))
    for (number, pair), data in zip(pairs, read, strict=True):
        try:
            with clock("decode", images=0):
                coded = data()
            images.append(Image(number, pair, *files.load(pair, clock, data=coded)))
        except Failure as error:  # noqa: PERF203 - beside reading a file it costs nothing
            failed.append((number, *error.args))
    return Group(images, failed, clock.take())


@stage
def save(group: Group, *, files: Files, folder: Path) -> Group:
    """Write a group's files -> the group without its frames. A task."""
    enter(folder)
    clock = Spans(f"worker {os.getpid()}")
    failed = [*group.failed]
    written = at_once(partial(_save, files, clock), group.images, far=is_url(files.output))
    for image, done in zip(group.images, written, strict=True):
        try:
            done()
        except Failure as error:  # noqa: PERF203
            failed.append((image.number, *error.args))
    images = [image._replace(frame_HWC=np.empty(0)) for image in group.images]
    return group._replace(images=images, failed=failed, spans=[*group.spans, *clock.take()])


class Translate:
    """A group of frames as they were loaded -> as they are to be saved. An actor, which keeps the engine.

    Args:
        job: what is to be done; its device is this actor's.
        folder: that relative paths start from.
        threads: of the engine on a CPU.
        images: of the run, for the warm-up.
    """

    def __init__(self, job: Job, folder: Path, threads: int, images: int):
        self._job = job
        self._stages: Stages | None = None
        self._broken: Broken | None = None
        enter(folder)
        try:
            self._start(threads, images)
        except Exception as error:  # Ray would try it for ever
            self._broken = broken(error)

    def _start(self, threads: int, images: int) -> None:
        import torch

        from p2p.pipelines.load import load_stages
        from p2p.profiling.clock import Clock
        from p2p.system.device import pick_device

        torch.set_num_threads(threads)  # of which Ray leaves one
        clock = Clock()
        clock.keep_spans()
        self._stages = load_stages(self._job, device=pick_device(self._job.device), clock=clock)
        self._stages.warmup(self._job.batch_size, images=images)

    def __call__(self, row: Row) -> Row:
        """Translate one group."""
        if self._broken is not None:
            return packed(Group([], [], [], self._broken))
        return stage(self._translate)(row)

    def _translate(self, group: Group) -> Group:
        if not group.images:
            return group
        assert self._stages is not None
        frames = self._stages.outputs(group.images, batch_size=self._job.batch_size)  # type: ignore[arg-type]
        images = [image._replace(frame_HWC=frame) for image, frame in zip(group.images, frames, strict=True)]
        measured, lane = self._stages.clock.spans, f"engine {os.getpid()}"
        assert measured is not None
        spans: list[Span] = [(span.stage, lane, span.begin_ns, span.end_ns, span.images) for span in measured]
        measured.clear()
        return group._replace(images=images, spans=[*group.spans, *spans])


def _save(files: Files, clock: Spans, image: Image) -> None:
    files.save(image.pair, image.frame_HWC, image.size, clock)


def at_once(work: Callable[[Any], T], items: list, *, far: bool) -> list[Callable[[], T]]:
    """What gives the result of work on each item, or raises: work with a store is done before, by threads."""
    if not far:
        return [partial(work, item) for item in items]
    with ThreadPoolExecutor(THREADS) as pool:
        return [pool.submit(work, item).result for item in items]


def enter(folder: Path) -> None:
    """Have relative paths mean here what they mean to the driver, where its folder is here, too."""
    with suppress(OSError):
        os.chdir(folder)
