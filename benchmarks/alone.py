"""The speed of each stage alone, which the speed of the whole pipeline is compared with."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

from p2p.codecs.codec import CodedFiles
from p2p.data.pairs import Pair
from p2p.pipelines.files import CODED_BYTES
from p2p.pipelines.messages import LOAD, SAVE, Task
from p2p.pipelines.overlap import ring_for
from p2p.pipelines.slots import SharedArray, hwc, share_pairs, share_slots
from p2p.pipelines.stages import Stages
from p2p.pipelines.workers import Workers
from p2p.system.cores import available_cores


def loading(stages: Stages, pairs: list[Pair], batch: int) -> float:
    """Images/s of the workers that read and, unless the GPU does it, decode and preprocess."""
    with _workers(stages, pairs, batch) as (pool, arrays):
        return _speed(pool, LOAD, arrays["loaded"].array, len(pairs), part=ring_of(stages, batch)[0])


def saving(stages: Stages, frames: list[np.ndarray], pairs: list[Pair], batch: int) -> float:
    """Images/s of the workers that encode and write such frames."""
    with _workers(stages, pairs, batch) as (pool, arrays):
        output = arrays["output"].array
        for row in range(output.shape[0] * batch):
            output[divmod(row, batch)] = frames[row % len(frames)]
        arrays["saved"].array["height"], arrays["saved"].array["width"] = frames[0].shape[:2]
        return _speed(pool, SAVE, arrays["saved"].array, len(pairs), part=ring_of(stages, batch)[0])


def generating(stages: Stages, batch: int, seconds: float = 0.5) -> float:
    """Images/s of the engine, with the conversions on both sides, from memory to memory of its device."""
    device = stages.engine.device
    height, width, channels = hwc(stages.engine.manifest.input_shape)
    frames = torch.randint(0, 256, (batch, height, width, channels), dtype=torch.uint8, device=device)
    stages.warmup(batch, images=batch)

    def run(calls: int) -> float:
        begin = time.perf_counter()
        for _ in range(calls):
            stages.engine.frames(frames)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - begin) / calls

    return batch / run(max(3, int(seconds / run(3))))


def decoding(stages: Stages, pairs: list[Pair], batch: int) -> float:
    """Images/s of the GPU's decoder and what brings its frames to size, of files in memory."""
    device, (channels, height, width) = stages.engine.device, stages.engine.manifest.input_shape
    read = [np.fromfile(pair.input.path, np.uint8) for pair in pairs]
    files = CodedFiles(
        addresses=np.array([file.ctypes.data for file in read], np.uintp),
        lengths=np.array([len(file) for file in read]),
        sizes=np.array([stages.files.gpu_size(pair, bytes(file)) for pair, file in zip(pairs, read, strict=True)]),
    )
    halves = [pair.input.half for pair in pairs]
    starts = range(0, len(read) - batch + 1, batch)
    output = torch.empty(batch, height, width, channels, dtype=torch.uint8, device=device)
    torch.cuda.synchronize()
    for _ in range(2):  # once to warm up
        begin = time.perf_counter()
        for start in starts:
            some = slice(start, start + batch)
            stages.loader(files.some(some), halves[some], output, range(batch))
        stages.loader.stream.synchronize()
        seconds = time.perf_counter() - begin
    return len(starts) * batch / seconds


def ring_of(stages: Stages, batch: int) -> tuple[int, int]:
    """As the pipeline would share such slots."""
    return ring_for(batch, available_cores(), on_gpu=stages.engine.device.type == "cuda")


@contextmanager
def _workers(stages: Stages, pairs: list[Pair], batch: int) -> Iterator[tuple[Workers, dict[str, SharedArray]]]:
    manifest = stages.engine.manifest
    arrays = share_pairs(pairs) | share_slots(
        slots=ring_of(stages, batch)[1],
        slot_size=batch,
        input_shape=manifest.input_shape,
        output_shape=manifest.output_shape,
        coded=CODED_BYTES if stages.files.gpu_decodes else 0,
    )
    with ExitStack() as stack:
        for array in arrays.values():
            stack.enter_context(array)
        pool = Workers(available_cores(), niceness=0, each_span=False, files=stages.files, arrays=arrays)
        stack.enter_context(pool)
        pool.wait_until_ready()
        yield pool, arrays


def _speed(pool: Workers, kind: int, rows: np.ndarray, count: int, *, part: int) -> float:
    """Images/s of loading or saving so many, in the slots of these rows, each as soon as it is free again."""
    slots, batch = rows.shape
    free, left, starts = list(range(slots)), {}, iter(range(0, count, batch))
    begin = time.perf_counter()
    while True:
        while free and (start := next(starts, None)) is not None:
            slot, some = free.pop(), min(batch, count - start)
            rows["pair"][slot, :some], left[slot] = range(start, start + some), some
            for first in range(0, some, part):
                pool.submit(Task(kind, slot, first, min(part, some - first)))
        if not pool.pending:
            return count / (time.perf_counter() - begin)
        pool.hand_out()
        for task, _ in pool.answers(wait_s=None):
            left[task.slot] -= task.count
            if not left[task.slot]:
                free.append(task.slot)
