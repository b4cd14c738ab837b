"""Each stage with nothing beside it: what the whole is compared with."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

from p2p.batch import from_frames, to_frames
from p2p.data.pairs import Pair
from p2p.pipelines.gpu_translator import DECODERS
from p2p.pipelines.overlap import CODED, available_cores, hwc, source
from p2p.pipelines.slots import SharedArray
from p2p.pipelines.stages import Stages
from p2p.pipelines.worker import Load, Save
from p2p.pipelines.workers import Workers

PART = 4


def loading(stages: Stages, pairs: list[Pair], batch: int) -> float:
    """Images/s of the workers that read and, unless the GPU does it, decode and preprocess."""
    with _workers(stages, batch, files=len(pairs)) as (pool, _, slots):
        tasks = [
            Load(start // batch % slots, start % batch, list(map(source, pairs[start : start + min(PART, batch)])))
            for start in range(0, len(pairs), min(PART, batch))
        ]
        return _speed(pool, tasks, len(pairs))


def saving(stages: Stages, frames: list[np.ndarray], batch: int, count: int) -> float:
    """Images/s of the workers that encode and write such frames."""
    with _workers(stages, batch, files=count) as (pool, arrays, slots):
        for slot in range(slots):
            for row in range(batch):
                arrays["output"].array[slot, row] = frames[(slot * batch + row) % len(frames)]
        size, part = frames[0].shape[:2], min(PART, batch)
        tasks = [
            Save(start // batch % slots, start % batch, [(f"{start + i:06d}", size) for i in range(part)])
            for start in range(0, count, part)
        ]
        return _speed(pool, tasks, count)


def generating(stages: Stages, batch: int, seconds: float = 0.5) -> float:
    """Images/s of the engine, with the conversions on both sides, from memory to memory of its device."""
    device = stages.engine.device
    height, width, channels = hwc(stages.engine.manifest.input_shape)
    frames = torch.randint(0, 256, (batch, height, width, channels), dtype=torch.uint8, device=device)
    stages.warmup(batch, images=batch)

    def run(calls: int) -> float:
        begin = time.perf_counter()
        for _ in range(calls):
            to_frames(stages.engine(from_frames(frames)))
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - begin) / calls

    return batch / run(max(3, int(seconds / run(3))))


def decoding(stages: Stages, pairs: list[Pair], batch: int) -> float:
    """Images/s of the GPU's decoder and transform, of files in memory, by as many threads as the pipeline has."""
    device, (channels, height, width) = stages.engine.device, stages.engine.manifest.input_shape
    files = [np.fromfile(pair.input.path, np.uint8) for pair in pairs]
    halves = [pair.input.half for pair in pairs]
    starts = range(0, len(files) - batch + 1, batch)
    loaders = [stages.gpu_loader("alone") for _ in range(DECODERS)]
    outputs = [torch.empty(batch, channels, height, width, device=device) for _ in loaders]
    torch.cuda.synchronize()

    def work(index: int) -> None:
        for start in starts[index::DECODERS]:
            loaders[index](files[start : start + batch], halves[start : start + batch], outputs[index], range(batch))
        loaders[index].finish()

    with ThreadPoolExecutor(DECODERS) as threads:
        for seconds in (None, None):  # once to warm up
            begin = time.perf_counter()
            list(threads.map(work, range(DECODERS)))
            seconds = time.perf_counter() - begin
    return len(starts) * batch / seconds


@contextmanager
def _workers(stages: Stages, batch: int, *, files: int) -> Iterator[tuple[Workers, dict[str, SharedArray], int]]:
    manifest, slots = stages.engine.manifest, max(3, 128 // batch)
    arrays = {
        "input": SharedArray((slots, batch, *hwc(manifest.input_shape)), "uint8"),
        "deep": SharedArray((slots, batch, *hwc(manifest.input_shape)), "float32"),
        "output": SharedArray((slots, batch, *hwc(manifest.output_shape)), "uint8"),
        "stop": SharedArray((1,), "uint8"),
    }
    if stages.files.gpu_decodes:
        arrays["coded"] = SharedArray((slots, batch, CODED), "uint8")
    with ExitStack() as stack:
        for array in arrays.values():
            stack.enter_context(array)
        pool = Workers(available_cores(), niceness=0, each_span=False, files=stages.files, arrays=arrays)
        stack.enter_context(pool)
        pool.wait_until_ready()
        yield pool, arrays, slots


def _speed(pool: Workers, tasks: list, count: int) -> float:
    begin = time.perf_counter()
    for task in tasks:
        pool.submit(task)
    while pool.pending:
        pool.hand_out()
        for _ in pool.answers(wait_s=None):
            pass
    return count / (time.perf_counter() - begin)
