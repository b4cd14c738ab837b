"""Loading, generating and saving at the same time.

    workers     load 3 | load 4 | save 0 | load 5 | save 1 | ...      processes: decode, preprocess; encode, write
    engine          [  1  ][  2  ][  3  ][  4  ] ...                  this process

An image is decoded into a row of an input slot, the engine turns an input slot into an output slot, and from there
it is encoded. Slots are memory that all processes share, a fixed ring on either side of the engine: whoever is too
fast waits for a free one, and memory does not grow with the number of images. Batches are the same, in the same
order, as in the sequential pipeline, and the functions are the same, so the files are the same bytes.

An engine that computes on every core of a CPU is the exception. It and the workers would only take the cores from
each other, and its threads wait for the slowest of them: 144 instead of 174 images/s in sequence. So they take turns,
a few batches long, and what is gained is that loading and saving use all cores, too: 176.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch

from p2p.data.pairs import Pair
from p2p.pipelines import sequential
from p2p.pipelines.slots import SharedArray
from p2p.pipelines.stages import Stages
from p2p.pipelines.translator import OnCpu, OnGpu, Rows
from p2p.pipelines.worker import Load, Loaded, Save
from p2p.pipelines.workers import QUEUED, Workers

PART = 4  # images of a task, at least, where a batch has them: a task costs this process 0.1 ms, whatever its size
FEW = 64  # images: starting two workers takes 0.25 s, about what they save on a hundred
RING = 16  # images of a ring, at least, so that a turn is worth its hand-over
NICENESS = 5  # of workers that share their cores with the engine


@dataclass
class Loading:
    """A batch whose images the workers are loading into a slot."""

    slot: int
    pairs: list[Pair]
    missing: int
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    deep: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)

    def rows(self) -> Rows:
        """What can be translated."""
        rows = [row for row in range(len(self.pairs)) if row not in self.failed]
        images = [(self.pairs[row].name, self.sizes[row]) for row in rows]
        return Rows(self.slot, rows, sorted(self.deep), images)


def run(
    pairs: list[Pair], stages: Stages, *, batch_size: int, slots: int | None = None, workers: int | None = None
) -> None:
    """Translate all pairs' inputs, `batch_size` at a time, after the engine's warm-up, in which the workers start.

    The first exception of any stage, a worker's death or Ctrl-C ends the run: images in hand are finished, no others.

    Args:
        slots: batches in each of the two rings; None for as many as keep the workers busy, 3 at least.
        workers: processes that load and save; 0 for the sequential pipeline; None for one per core, and none for a
            few images (64) or a single batch.

    Raises:
        ValueError: an argument is out of range, or a worker was killed.
    """
    if workers is None:
        workers = 0 if len(pairs) <= max(FEW, batch_size) else available_cores()
    part = min(batch_size, max(PART, -(-batch_size // max(workers, 1))))
    if slots is None:
        slots = max(3, -(-max(QUEUED * workers * part, RING) // batch_size))
    if slots < 1:
        raise ValueError(f"pipeline.slots={slots} is too small: use 1 or more")
    if workers < 0:
        raise ValueError(f"pipeline.workers={workers} is too small: use 1 or more, or 0 for one image after another")
    if workers == 0:
        return sequential.run(pairs, stages, batch_size=batch_size)
    manifest = stages.engine.manifest
    on_gpu = stages.engine.device.type == "cuda"
    turns = not on_gpu and torch.get_num_threads() >= available_cores()
    arrays = {
        "input": SharedArray((slots, batch_size, *hwc(manifest.input_shape)), "uint8"),
        "deep": SharedArray((slots, batch_size, *hwc(manifest.input_shape)), "float32"),
        "output": SharedArray((slots, batch_size, *hwc(manifest.output_shape)), "uint8"),
        "stop": SharedArray((1,), "uint8"),
    }
    with ExitStack() as stack:
        for array in arrays.values():
            stack.enter_context(array)
        niceness = 0 if on_gpu else NICENESS
        pool = stack.enter_context(Workers(workers, niceness=niceness, files=stages.files, arrays=arrays))
        if on_gpu:
            arrays["input"].pin()
            arrays["output"].pin()
        stages.warmup(batch_size, images=len(pairs))
        frames = [arrays[name].array for name in ("input", "deep", "output")]
        translator = (OnGpu if on_gpu else OnCpu)(stages, *frames)
        pool.wait_until_ready()
        batches = (pairs[start : start + batch_size] for start in range(0, len(pairs), batch_size))
        with stages.clock("e2e", len(pairs)):
            _translate_all(batches, stages, pool, translator, part=part, slots=slots, turns=turns)
            translator.close()


def _translate_all(
    batches: Iterator[list[Pair]],
    stages: Stages,
    pool: Workers,
    translator: OnCpu | OnGpu,
    *,
    part: int,
    slots: int,
    turns: bool,
) -> None:
    free_inputs, free_outputs = list(range(slots)), list(range(slots))
    loading: deque[Loading] = deque()  # in order
    saving: dict[int, int] = {}  # images of an output slot that are not on the disk
    exhausted = False
    workers_turn = True

    def startable() -> bool:
        return bool(loading and not loading[0].missing and free_outputs and len(translator) < translator.depth)

    while True:
        while free_inputs and not exhausted:
            batch = next(batches, None)
            if exhausted := batch is None:
                break
            loading.append(Loading(free_inputs.pop(), batch, missing=len(batch)))
            for first in range(0, len(batch), part):
                images = [(pair.name, str(pair.input.path), pair.input.half) for pair in batch[first : first + part]]
                pool.submit(Load(loading[-1].slot, first, images))
        if turns:  # each goes on for as long as it can
            workers_turn = pool.pending > 0 and (workers_turn or not startable())
        if workers_turn:
            pool.hand_out()
        while startable() and not (turns and workers_turn):
            loaded = loading.popleft()
            for row, reason in sorted(loaded.failed.items()):
                stages.fail(loaded.pairs[row].name, reason)
            if len(loaded.failed) < len(loaded.pairs):
                translator.start(loaded.rows(), free_outputs.pop())
            else:
                free_inputs.append(loaded.slot)
        if turns and not workers_turn and not translator and pool.pending:
            continue  # nothing could be read of what was loaded: the workers' turn
        if not (loading or translator or saving or not exhausted):
            return
        if translator and (len(translator) == translator.depth or translator.ready() or pool.silent()):
            translated, slot = translator.finish()
            free_inputs.append(translated.slot)
            saving[slot] = len(translated.images)
            for first in range(0, len(translated.images), part):
                pool.submit(Save(slot, first, translated.images[first : first + part]))
            continue
        for answer in pool.answers(wait=not translator and bool(loading or saving)):
            stages.clock.merge(answer.spans)
            stages.clock.cpu_seconds += answer.cpu_seconds
            if isinstance(answer, Loaded):
                batch_of = next(each for each in loading if each.slot == answer.slot)
                batch_of.missing -= answer.count
                batch_of.sizes |= answer.sizes
                batch_of.deep += answer.deep
                batch_of.failed |= answer.failed
                continue
            saving[answer.slot] -= answer.count
            if not saving[answer.slot]:
                free_outputs.append(answer.slot)
                del saving[answer.slot]
            for _ in range(answer.count):
                stages.on_image()


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hwc(shape_CHW: list[int]) -> tuple[int, int, int]:
    """The shape of a frame."""
    channels, height, width = shape_CHW
    return height, width, channels
