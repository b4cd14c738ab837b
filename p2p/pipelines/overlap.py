"""The overlap pipeline: load, generate and save at the same time.

    workers     load 3 | load 4 | save 0 | load 5 | save 1 | ...      processes: decode, preprocess; encode, write
    engine          [  1  ][  2  ][  3  ][  4  ] ...                  this process

With codec=nvjpeg on a GPU, workers only read JPEG files and judge their headers; nvJPEG decodes them, and CV-CUDA
brings them to size, on a stream beside the engine's.

An image is decoded into a row of an input slot, the engine turns an input slot into an output slot, and from there
it is encoded. Slots are memory that all processes share, a fixed ring on either side of the engine: whoever is too
fast waits for a free one, and memory does not grow with the number of images. Batches are the same, in the same
order, as in the sequential pipeline, and the functions are the same, so the files are the same bytes.

This process hands out tasks, a few numbers each, and starts the engine; beside that it touches no image. Whatever it
does between two calls of the engine, the GPU and the workers wait for.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from p2p.data.pairs import Pair
from p2p.pipelines import sequential, strips
from p2p.pipelines.files import CODED_BYTES
from p2p.pipelines.gpu_translator import GpuTranslator
from p2p.pipelines.groups import Groups
from p2p.pipelines.messages import LOAD, SAVE, Task
from p2p.pipelines.share import All, Share
from p2p.pipelines.slots import ROW, SharedArray, pixels_of, share_pairs, share_slots, share_slots_of_any_size
from p2p.pipelines.stages import Stages
from p2p.pipelines.translator import CpuTranslator, SlotBatch
from p2p.pipelines.workers import PART, QUEUED, Workers, default_workers
from p2p.system.cores import available_cores
from p2p.system.memory import check_room
from p2p.system.plural import counted

MANY = 64  # workers that may be, on however few cores
RING = 16  # images of a ring, at least
# Images, and bytes of them, of a GPU's slot that holds several small batches: most work is done once for all of them.
GROUP, GROUP_BYTES = 32, 64 << 20
SLOTS_BYTES = 1 << 30  # of a ring of slots of any size, unless two slots are more
MANY_SLOTS = 8  # that a run should fill, before slots hold several batches
NICENESS = 5  # of workers that share their cores with the engine


@dataclass
class Loading:
    """A slot of which so many images are still to be loaded."""

    batch: SlotBatch
    missing: int


def run(
    pairs: list[Pair],
    stages: Stages,
    *,
    batch_size: int,
    slots: int | None = None,
    workers: int | None = None,
    share: Share | None = None,
) -> None:
    """Translate all pairs' inputs, `batch_size` at a time, after the engine's warm-up, in which the workers start.

    The first exception of any stage, a worker's death or Ctrl-C ends the run: images in hand are finished, no others.

    Args:
        slots: batches, or on a GPU groups of small ones, in each of the two rings; None for as many as keep the workers
            busy, 3 at least, and as many more as a GPU has in hand.
        workers: processes that load and save; 0 for the sequential pipeline; None for one per core, or fewer where
            there are fewer tasks.
        share: what of the pairs is to be done here, and not on another device; None for all.

    Raises:
        ValueError: an argument is out of range, or a worker was killed.
    """
    share = share or All()
    images = -(-len(pairs) // share.devices)
    if workers is None:
        workers = default_workers(images, batch_size=batch_size)
    manifest = stages.engine.manifest
    on_gpu = stages.engine.device.type == "cuda"
    if slots is not None and slots < 1:
        raise ValueError(f"pipeline.slots={slots} is too small: use 1 or more")
    if workers < 0:
        raise ValueError(f"pipeline.workers={workers} is too small: use 1 or more, or 0 for one image after another")
    if workers > (most := max(MANY, 4 * available_cores())):
        raise ValueError(
            f"pipeline.workers={workers} is too large for {counted(available_cores(), 'core')}, of which each is kept"
            f" busy by one: use {most} or less"
        )
    if workers == 0 or not pairs:
        return sequential.run(pairs, stages, batch_size=batch_size)
    if stages.any_size is not None:
        plan = share.plan or stages.plan(pairs, batch_size=batch_size)
        return _run_at_any_size(plan, stages, batch_size=batch_size, slots=slots, workers=workers, share=share)
    output_dtype = stages.files.output_dtype
    image_bytes = math.prod(manifest.input_shape) + math.prod(manifest.output_shape) * output_dtype.itemsize
    slot_size = batch_size
    if on_gpu:
        slot_size = batch_size * batches_per_slot(images, batch_size, image_bytes=image_bytes)
        if (most := GpuTranslator.held(slot_size, image_bytes, device=stages.engine.device)) < slot_size:
            if most < batch_size:
                print(f"the GPU's memory holds only buffers for batches of {most}: continuing with these")
            batch_size = slot_size = min(batch_size, most)
    part, ring = ring_for(slot_size, workers, on_gpu=on_gpu)
    if slots is None:
        slots = ring + (GpuTranslator.depth if on_gpu else 0)
    slots = min(slots, -(-images // slot_size))
    check_room(
        slots * slot_size * image_bytes,
        what="use a smaller batch_size or fewer pipeline.slots:"
        f" {counted(slot_size, 'image')} in each of {counted(slots, 'slot')}",
    )
    rows = np.zeros(len(pairs), ROW)
    rows["pair"] = range(len(pairs))
    groups = share.groups(rows, range(0, len(pairs), slot_size))
    arrays = share_pairs(pairs) | share_slots(
        slots=slots,
        slot_size=slot_size,
        input_shape=manifest.input_shape,
        output_shape=manifest.output_shape,
        output_dtype=output_dtype.name,
        coded=CODED_BYTES if stages.files.gpu_decodes else 0,
    )
    _run(pairs, stages, groups, arrays, batch_size=batch_size, workers=workers, part=part, share=share)


def _run_at_any_size(
    plan: Groups, stages: Stages, *, batch_size: int, slots: int | None, workers: int, share: Share
) -> None:
    """The whole images, and after them, when their slots are gone, those that are large."""
    if plan.large:
        _run_whole(plan, stages, batch_size=batch_size, slots=slots, workers=workers, share=share)
    else:
        stages.warmup(batch_size, images=len(plan.pairs))
    if not (large := plan.by_rows()):
        return
    with stages.clock("e2e", len(large)):
        for group in share.groups(plan.rows, range(plan.large, len(plan.pairs)), large=True):
            strips.translate(plan.pairs[group["pair"][0]], stages, batch_size=batch_size)
            share.done(group["pair"])


def _run_whole(plan: Groups, stages: Stages, *, batch_size: int, slots: int | None, workers: int, share: Share) -> None:
    """With slots that have room for the largest group of images, one behind the other."""
    rows, starts = plan.rows[: plan.large], plan.starts_of_whole()
    pixels = int((rows["at"] + pixels_of(rows)).max(initial=1))
    channels = stages.engine.manifest.input_shape[0], stages.engine.manifest.output_shape[0]
    output_dtype = stages.files.output_dtype
    pixel_bytes = channels[0] + channels[1] * output_dtype.itemsize
    slot_size = int(np.diff([*starts, plan.large]).max())
    part, ring = ring_for(slot_size, workers)
    if slots is None:
        slots = max(2, min(ring, SLOTS_BYTES // (pixels * pixel_bytes)))
    slots = min(slots, -(-len(starts) // share.devices))
    check_room(
        slots * pixels * pixel_bytes,
        what=f"use a smaller batch_size or fewer pipeline.slots: {pixels:,} pixels in each of {counted(slots, 'slot')}",
    )
    arrays = share_pairs(plan.pairs) | share_slots_of_any_size(
        slots=slots, slot_size=slot_size, pixels=pixels, channels=channels, output_dtype=output_dtype.name
    )
    groups = share.groups(rows, starts)
    pairs = plan.pairs[: plan.large]
    _run(pairs, stages, groups, arrays, batch_size=batch_size, workers=workers, part=part, share=share)


def _run(
    pairs: list[Pair],
    stages: Stages,
    groups: Iterable[np.ndarray],
    arrays: dict[str, SharedArray],
    *,
    batch_size: int,
    workers: int,
    part: int,
    share: Share,
) -> None:
    """All but the choice of the slots."""
    on_gpu = stages.engine.device.type == "cuda"
    with ExitStack() as stack:
        for array in arrays.values():
            stack.enter_context(array)
        niceness = 0 if on_gpu else NICENESS
        each_span = stages.clock.spans is not None
        pool = stack.enter_context(
            Workers(workers, niceness=niceness, each_span=each_span, files=stages.files, arrays=arrays)
        )
        if on_gpu:
            arrays["input"].pin()
            arrays["output"].pin()
        # Before the warm-up, which leaves no more memory than it has to where there is little.
        translator = make_translator(stages, {name: each.array for name, each in arrays.items()}, batch_size=batch_size)
        stack.push(translator.end)
        stages.warmup(batch_size, images=len(pairs))
        pool.wait_until_ready()
        with stages.clock("e2e", len(pairs)):
            try:
                _translate_all(pairs, groups, stages, pool, translator, arrays, part=part, share=share)
                translator.close()
            finally:
                spans, cpu_seconds = pool.worked()
                stages.clock.merge(spans)
                stages.clock.cpu_seconds += cpu_seconds


def batches_per_slot(images: int, batch_size: int, *, image_bytes: int) -> int:
    """How many small batches a GPU's slot holds: as many as leave enough slots to work side by side."""
    return max(1, min(GROUP, GROUP_BYTES // image_bytes, images // MANY_SLOTS) // batch_size)


def ring_for(slot_size: int, workers: int, *, on_gpu: bool = False) -> tuple[int, int]:
    """Images of a task, and slots of a ring, that keep so many workers busy.

    Beside a GPU a slot is shared by half of the workers: longer tasks are 15 % faster, 8 images for 4 on 8 cores.
    """
    sharers = max(4, workers // 2) if on_gpu else max(workers, 1)
    part = min(slot_size, max(PART, -(-slot_size // sharers)))
    return part, max(3, -(-max(QUEUED * workers * part, RING) // slot_size))


def make_translator(stages: Stages, arrays: dict[str, np.ndarray], *, batch_size: int) -> CpuTranslator | GpuTranslator:
    """What has the engine between the slots."""
    on_gpu = stages.engine.device.type == "cuda" and stages.any_size is None
    kind = GpuTranslator if on_gpu else CpuTranslator
    return kind(stages, arrays, batch_size=batch_size)


def _translate_all(
    pairs: list[Pair],
    groups: Iterable[np.ndarray],
    stages: Stages,
    pool: Workers,
    translator: CpuTranslator | GpuTranslator,
    arrays: dict[str, SharedArray],
    *,
    part: int,
    share: Share,
) -> None:
    loaded, saved = arrays["loaded"].array, arrays["saved"].array
    slots = len(loaded)
    free_inputs, free_outputs = list(range(slots)), list(range(slots))
    loading: deque[Loading] = deque()  # in order
    by_slot: dict[int, Loading] = {}
    saving: dict[int, int] = {}  # images of an output slot that are not on the disk
    waiting = iter(groups)
    exhausted = False

    def submit(kind: int, slot: int, count: int) -> None:
        for first in range(0, count, part):
            pool.submit(Task(kind, slot, first, min(part, count - first)))

    def startable() -> bool:
        return bool(loading and not loading[0].missing and free_outputs and len(translator) < translator.depth)

    while True:
        while free_inputs and not exhausted:
            group = next(waiting, None)
            if exhausted := group is None:
                break
            slot, some = free_inputs.pop(), [pairs[number] for number in group["pair"]]
            loaded[slot, : len(some)] = group
            by_slot[slot] = Loading(SlotBatch(slot, some, loaded[slot, : len(some)]), missing=len(some))
            loading.append(by_slot[slot])
            submit(LOAD, slot, len(some))
        pool.hand_out()
        while startable():
            batch = loading.popleft().batch
            translator.load(batch)
            for row, failure in sorted(batch.failed.items()):
                stages.fail(batch.pairs[row], *failure)
            if batch.rows:
                translator.start(batch, free_outputs.pop())
            else:
                free_inputs.append(batch.slot)
        if not (loading or translator or saving or not exhausted):
            return
        wait_s = None if not translator and (loading or saving) else 0
        if translator and (len(translator) == translator.depth or translator.ready() or pool.silent()):
            batch, slot = translator.finish()
            rows = batch.rows
            saved[slot, : len(rows)] = batch.found[rows]
            free_inputs.append(batch.slot)
            saving[slot] = len(rows)
            submit(SAVE, slot, len(rows))
            wait_s = 0  # to see a worker's death between two calls of the engine
        for task, note in pool.answers(wait_s=wait_s):
            stages.clock.merge(note.spans)
            if task.kind == LOAD:
                by_slot[task.slot].missing -= task.count
                by_slot[task.slot].batch.failed |= note.failed
                continue
            for row, failure in note.failed.items():
                stages.fail(pairs[saved["pair"][task.slot, row]], *failure)
            for _ in range(task.count - len(note.failed)):
                stages.on_image()
            share.done(saved["pair"][task.slot, task.first : task.first + task.count])
            saving[task.slot] -= task.count
            if not saving[task.slot]:
                free_outputs.append(task.slot)
                del saving[task.slot]
