"""How the peers save outputs: copy them from the GPU, then encode and write them in other processes."""

from __future__ import annotations

import math
import mmap
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.pool import AsyncResult
from pathlib import Path

import numpy as np
import torch

from benchmarks import bgr
from benchmarks.cores import cpu_seconds

PART = 4  # images of a task
QUEUED = 2  # tasks for each process: one in hand, one next


class Savers:
    """Processes that encode and write, out of page-locked memory that they share with this one.

    `put` starts the copy and returns. A thread waits for it, and hands the batch out; a slot is used again once its
    files are written.

    Args:
        count: processes. They are forks: made before the memory is page-locked, and with no use of the GPU.
        batch: images of a slot.
        shape: (H, W, C) of a frame.
        output: folder of the files.
        format: "jpg" or "png".
    """

    def __init__(self, count: int, *, batch: int, shape: tuple[int, int, int], output: Path, format: str):
        slots = max(4, math.ceil(QUEUED * count * PART / batch))
        memory = mmap.mmap(-1, slots * batch * math.prod(shape))
        self._ring = torch.frombuffer(memory, dtype=torch.uint8).view(slots, batch, *shape)
        self._pool = get_context("fork").Pool(count, _start, (self._ring.numpy(), output, format))
        self._drain = ThreadPoolExecutor(1)
        self._saving: list[Future[list[AsyncResult]]] = []  # of each batch so far
        if torch.cuda.is_available():
            error = torch.cuda.cudart().cudaHostRegister(self._ring.data_ptr(), self._ring.numel(), 0)
            assert int(error) == 0, error  # else copies would wait, and the peer be slower than it is

    def put(self, frames_NHWC: torch.Tensor, names: list[str]) -> None:
        """Have frames saved, uint8 BGR on any device. Waits for a free slot."""
        number, slots = len(self._saving), len(self._ring)
        if number >= slots:
            self._wait_for(number - slots)
        slot = number % slots
        self._ring[slot, : len(names)].copy_(frames_NHWC, non_blocking=True)
        copied = torch.cuda.Event(blocking=True) if frames_NHWC.is_cuda else None
        if copied:
            copied.record()
        self._saving.append(self._drain.submit(self._hand_out, slot, names, copied))

    def finish(self) -> None:
        """Return when all files are written."""
        for number in range(max(0, len(self._saving) - len(self._ring)), len(self._saving)):
            self._wait_for(number)

    def __enter__(self) -> Savers:
        return self

    def __exit__(self, *_: object) -> None:
        self._drain.shutdown()
        self._pool.terminate()
        self._pool.join()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.cudart().cudaHostUnregister(self._ring.data_ptr())

    def _hand_out(self, slot: int, names: list[str], copied: torch.cuda.Event | None) -> list[AsyncResult]:
        if copied:
            copied.synchronize()
        firsts = range(0, len(names), PART)
        return [self._pool.apply_async(_save, (slot, first, names[first : first + PART])) for first in firsts]

    def _wait_for(self, number: int) -> None:
        for part in self._saving[number].result():
            part.get()


def drive(
    batches: Iterable[tuple[torch.Tensor, list[str]]],
    generate: Callable[[torch.Tensor], torch.Tensor],
    savers: Savers,
) -> dict[str, float]:
    """Translate and save all batches -> images/s, and the cores that were busy meanwhile."""
    begin, cpu, images = time.perf_counter(), cpu_seconds(), 0
    for frames, names in batches:
        savers.put(generate(frames), names)
        images += len(names)
    savers.finish()
    seconds = time.perf_counter() - begin
    return {"images_per_s": images / seconds, "cores_busy": (cpu_seconds() - cpu) / seconds}


def _start(ring: np.ndarray, output: Path, format: str) -> None:
    global _job
    _job = ring, output, format
    bgr.use_one_thread()


def _save(slot: int, first: int, names: list[str]) -> None:
    ring, output, format = _job
    for row, name in enumerate(names, first):
        (output / f"{name}.{format}").write_bytes(bgr.encode(ring[slot, row], format=format))
