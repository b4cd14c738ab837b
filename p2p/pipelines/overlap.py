"""Decoding, generating and encoding at the same time.

While the engine works on one batch, readers decode the next ones and writers encode the last ones:

    readers    [0][1][2][3]...
    engine        [ 0 ][ 1 ][ 2 ]...
    writers            [0][1][2]...

Batches are the same, in the same order, as in the sequential pipeline, so the files are the same bytes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from p2p.data.pairs import Pair
from p2p.pipelines.stages import Stages


def run(
    pairs: list[Pair],
    stages: Stages,
    *,
    batch_size: int,
    slots: int = 3,
    readers: int | None = None,
    writers: int | None = None,
) -> None:
    """Translate all pairs' inputs, `batch_size` at a time.

    At most `slots` batches wait to be generated and as many to be written, so memory does not grow with the
    number of images. The first exception of any stage ends the run: what was queued is dropped, what was being
    written is finished.

    Args:
        slots: batches in each of the two queues.
        readers, writers: threads; None for one per core, at most 8.
    """
    if slots < 1:
        raise ValueError(f"pipeline.slots={slots} is too small: use 1 or more")
    batches = (pairs[start : start + batch_size] for start in range(0, len(pairs), batch_size))
    loading: deque[list[Future]] = deque()
    saving: deque[list[Future]] = deque()
    with _threads(readers, "reader") as reading, _threads(writers, "writer") as writing:

        def load_next() -> None:
            if batch := next(batches, None):
                loading.append([reading.submit(stages.load, pair) for pair in batch])

        for _ in range(slots):
            load_next()
        while loading:
            batch = stages.collate(_results(loading.popleft()))
            load_next()
            if batch is None:
                continue
            frames_NHWC = stages.translate(batch)
            if len(saving) == slots:
                _results(saving.popleft())  # a slow disk slows, nothing more
            saving.append([writing.submit(stages.save, *image) for image in zip(batch.names, frames_NHWC, strict=True)])
        while saving:
            _results(saving.popleft())


@contextmanager
def _threads(count: int | None, name: str) -> Iterator[ThreadPoolExecutor]:
    """A pool that, when the block ends by an exception, drops what has not begun."""
    pool = ThreadPoolExecutor(count or min(8, os.cpu_count()), thread_name_prefix=name)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _results(futures: list[Future]) -> list:
    return [future.result() for future in futures]
