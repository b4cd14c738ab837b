"""Gather images that arrive at about the same time into batches. One thread owns the network."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Done(NamedTuple):
    """What became of an image.

    Attributes:
        output: of it.
        batch: how many images went through the network with it, itself among them.
        waited_s: seconds until the network took it.
        worked_s: seconds that the network took for the batch.
    """

    output: Any
    batch: int
    waited_s: float
    worked_s: float


@dataclass(eq=False)
class Waiting(Generic[T]):
    """An image in the queue; `kind` is the same for those that can be in one batch."""

    image: T
    kind: object
    since: float
    done: asyncio.Future[Done] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batcher(Generic[T]):
    """`await batcher(image, kind)`, from many tasks at once. The oldest image decides which kind is next.

    A batch starts when it is full or its oldest image has waited `max_wait_s`, and no sooner than the batch before it
    is done. A task that is cancelled takes its image out of the queue.

    Args:
        work: a list of images of one kind, and the kind -> a list of their outputs. Called in one thread.
        max_batch: images of a batch at most.
        max_wait_s: seconds that an image waits for others while the network has nothing to do.
        on_batch: told of each batch how many images it has, and the seconds that it took.
    """

    def __init__(
        self,
        work: Callable[[list[T], Any], list[Any]],
        *,
        max_batch: int,
        max_wait_s: float,
        on_batch: Callable[[int, float], None] = lambda images, seconds: None,
    ):
        self._work, self._max_batch, self._max_wait_s, self._on_batch = work, max_batch, max_wait_s, on_batch
        self._waiting: deque[Waiting[T]] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")

    def __len__(self) -> int:
        return len(self._waiting)

    async def __call__(self, image: T, kind: object) -> Done:
        """The output of an image; raises what `work` has raised of this image."""
        item = Waiting(image, kind, time.perf_counter())
        self._waiting.append(item)
        self._arrived.set()
        try:
            return await item.done
        finally:
            if item in self._waiting:  # cancelled
                self._waiting.remove(item)

    async def run(self) -> None:
        """Work until it is cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                group = await self._gathered()
                start = time.perf_counter()
                outputs = await loop.run_in_executor(self._thread, self._each, group)
                seconds = time.perf_counter() - start
                self._on_batch(len(group), seconds)
                for item, output in zip(group, outputs, strict=True):
                    if item.done.done():  # cancelled meanwhile
                        continue
                    if isinstance(output, Exception):
                        item.done.set_exception(output)
                    else:
                        item.done.set_result(Done(output, len(group), start - item.since, seconds))
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _gathered(self) -> list[Waiting[T]]:
        """The next batch."""
        while True:
            alike = [item for item in self._waiting if item.kind == self._waiting[0].kind][: self._max_batch]
            left = alike[0].since + self._max_wait_s - time.perf_counter() if alike else None
            if left is not None and (len(alike) == self._max_batch or left <= 0):
                for item in alike:
                    self._waiting.remove(item)
                return alike
            self._arrived.clear()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), left)

    def _each(self, group: list[Waiting[T]]) -> list[Any]:
        """The output of each, or the exception: one image that fails must not fail the others of its batch."""
        try:
            return self._work([item.image for item in group], group[0].kind)
        except Exception as error:
            if len(group) == 1:
                return [error]
        return [self._each([item])[0] for item in group]
