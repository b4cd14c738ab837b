"""The way of an image through the server: read and resized by one of several threads, translated, encoded."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from p2p.config.explain import explain
from p2p.serve.batcher import Batcher, Done
from p2p.serve.formats import Fit, Format, Size, TileStats, encoded, prepared
from p2p.serve.limits import Limits, Places, Refused
from p2p.serve.metrics import Metrics
from p2p.system import gpu_faults
from p2p.system.cores import available_cores

if TYPE_CHECKING:
    from p2p import Translator

LARGE = 2  # images of size=input and size=tile, which take memory by their own size, that are in memory at a time
THREADS = 8  # that decode and encode, at most
T = TypeVar("T")
log = logging.getLogger(__name__)


class Wanted(NamedTuple):
    """What is asked for of an image; all but the last are of `Translator.__call__`."""

    size: Size = "model"
    fit: Fit = "stretch"
    tile_stats: TileStats = "tile"
    restore_size: bool = False
    format: Format | None = None


class Answer(NamedTuple):
    """A translated image.

    Attributes:
        data: a whole file.
        media: its media type.
        seconds: that each part of its way took, by name.
        batch: how many images went through the network together.
    """

    data: bytes
    media: str
    seconds: dict[str, float]
    batch: int


class Service:
    """`await service(data, wanted)` while `run` runs. Make it in the event loop that it works in.

    Args:
        translator: the model.
        limits: what it refuses.
        max_batch, max_wait_s: see `Batcher`; a program that was built for smaller or larger batches gets those.
    """

    def __init__(self, translator: Translator, limits: Limits, *, max_batch: int, max_wait_s: float):
        self.translator, self.limits = translator, limits
        self.places = Places(limits.queue)
        self.metrics = Metrics(taken=lambda: self.places.taken, places=limits.queue)
        # Of a program for one size of batch, images alone would take as long as a batch each.
        self.max_batch = max(translator.min_batch, min(max_batch, translator.max_batch or max_batch))
        self.failed: str | None = None  # why the GPU works no more
        self._batcher: Batcher[Any] = Batcher(
            self._translate, max_batch=self.max_batch, max_wait_s=max_wait_s, on_batch=self.metrics.batch
        )
        self._threads = ThreadPoolExecutor(min(THREADS, available_cores()), thread_name_prefix="images")
        self._large = asyncio.Semaphore(LARGE)

    async def run(self) -> None:
        """Translate until it is cancelled."""
        try:
            await self._batcher.run()
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, data: bytes, wanted: Wanted, *, name: str = "the image") -> Answer:
        """Translate the bytes of a file.

        Raises:
            Refused: it cannot be translated, and why.
        """
        try:
            self._check(wanted)
            async with self._large if wanted.size != "model" else nullcontext():
                start = time.perf_counter()
                image = await self._in_thread(
                    lambda: prepared(self.translator, data, self.limits, size=wanted.size, fit=wanted.fit, name=name)
                )
                read_s = time.perf_counter() - start
                done = await self._translated(image, wanted, name=name)
                start = time.perf_counter()
                file, media = await self._in_thread(lambda: encoded(done.output, wanted.format))
            times = {"read": read_s, "wait": done.waited_s, "network": done.worked_s}
            answer = Answer(file, media, times | {"write": time.perf_counter() - start}, done.batch)
        except Exception:
            self.metrics.images.labels("failed").inc()
            raise
        self.metrics.images.labels("translated").inc()
        return answer

    def _check(self, wanted: Wanted) -> None:
        if self.failed is not None:
            raise Refused(503, self.failed)
        try:
            self.translator.check(
                size=wanted.size, fit=wanted.fit, tile_stats=wanted.tile_stats, restore_size=wanted.restore_size
            )
        except ValueError as error:
            raise Refused(400, str(error)) from error

    async def _translated(self, image: Any, wanted: Wanted, *, name: str) -> Done:
        kind = (wanted.size, wanted.restore_size, wanted.tile_stats, image.image_shape)
        try:
            return await self._batcher(image, kind)
        except Exception as error:
            sentence = explain(error, "serve")
            if gpu_faults.failure(error) is not None:
                self.failed = sentence
            if isinstance(error, ValueError):
                raise Refused(422, f"cannot translate {name}: {error}") from error
            if sentence is not None:  # the memory is full, or the GPU has failed
                raise Refused(503, f"cannot translate {name}: {sentence}") from error
            log.exception("cannot translate %s", name)
            raise Refused(500, f"cannot translate {name}: the network failed, see the server's log") from error

    def _translate(self, images: list[Any], kind: tuple) -> list[Any]:
        size, restore_size, tile_stats, _ = kind
        options = {"size": size, "restore_size": restore_size, "tile_stats": tile_stats}
        return list(self.translator.translate(images, **options, batch_size=self.max_batch))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
