"""The GPU's engine between two rings of slots: waits on the host for nothing but the oldest batch.

loader stream     [ decode, resize, copy to the GPU 2 ][ ... 3 ]
engine stream     [ engine 1 ][ engine 2 ]
download stream               [ copy to the host 1 ]
"""

from __future__ import annotations

from collections import deque
from types import TracebackType

import numpy as np
import torch

from p2p.batch import from_frames
from p2p.codecs.codec import CodedFiles
from p2p.pipelines.files import Failure
from p2p.pipelines.gpu_loader import runs
from p2p.pipelines.slots import CODED, FRAME, HIGH_DEPTH
from p2p.pipelines.stages import Stages
from p2p.pipelines.translator import SlotBatch, batches
from p2p.profiling.streams import StreamClock
from p2p.system.gpu_faults import failure


class GpuTranslator:
    """Loading, the engine and copies from the GPU on a stream each, `depth` slots at a time.

    Only events order them: no stage waits for the device, and the host waits for the oldest slot, asleep. Frames are
    converted on the GPU, so 3 bytes a pixel travel back and forth, or a file where the GPU decodes.

    Args:
        stages: what is done.
        arrays: the slots, see `p2p.pipelines.slots.share_slots`; input and output are better page-locked.
        batch_size: images that the engine gets at a time: a slot's, or fewer.
    """

    depth = 2  # one that is translated, and the next, which is loaded

    def __init__(self, stages: Stages, arrays: dict[str, np.ndarray], *, batch_size: int):
        self._stages, self._device, self._batch_size = stages, stages.engine.device, batch_size
        self._clock = StreamClock(stages.clock, device=self._device)  # before the streams: it waits for the device
        self._input_NHWC, self._high_depth_NHWC = (torch.from_numpy(arrays[name]) for name in ("input", "high_depth"))
        self._coded = arrays.get("coded")  # (slots, rows, bytes)
        self._output_NHWC = torch.from_numpy(arrays["output"])
        self._loads = torch.cuda.Stream(self._device) if stages.loader is None else stages.loader.stream
        self._engine, self._downloads = torch.cuda.Stream(self._device), torch.cuda.Stream(self._device)
        # Buffers of its own: the allocator's, freed on one stream while another reads, would need its bookkeeping.
        self._frames, self._translated = (
            [torch.empty(slots.shape[1:], dtype=slots.dtype, device=self._device) for _ in range(self.depth)]
            for slots in (self._input_NHWC, self._output_NHWC)
        )
        torch.cuda.synchronize(self._device)  # on the current stream, that memory may still have another use
        if stages.loader is not None:
            with stages.clock("warmup"):
                stages.loader.warmup(*self._input_NHWC.shape[1:4])
        self._free = deque(range(self.depth))
        self._downloaded = [torch.cuda.Event(blocking=True) for _ in range(self.depth)]
        self._running: deque[tuple[SlotBatch, int, int]] = deque()

    @classmethod
    def held(cls, slot_size: int, image_bytes: int, *, device: torch.device) -> int:
        """The slot size, or as many images as the buffers may be for: with half of the memory that is free."""
        free, _ = torch.cuda.mem_get_info(device)
        most = free // 2 // (cls.depth * image_bytes)
        return most if 1 <= most < slot_size else slot_size

    def __len__(self) -> int:
        return len(self._running)

    def load(self, batch: SlotBatch) -> None:
        """Queue the slot's way to the GPU; `start` comes next. What cannot be decoded is failed."""
        frames_NHWC, coded = self._frames[self._free[0]], batch.in_state(CODED)
        if coded:
            found, (of_slot, of_row, _) = batch.found[coded], self._coded.strides
            files = CodedFiles(
                addresses=self._coded.ctypes.data + batch.slot * of_slot + np.array(coded) * of_row,
                lengths=found["coded"],
                sizes=np.stack([found["height"], found["width"]], axis=1),
            )
            halves = [batch.pairs[row].input.half for row in coded]
            for place in self._stages.loader(files, halves, frames_NHWC, coded):
                self._load_on_cpu(batch, coded[place])
        with torch.cuda.stream(self._loads):
            for run in runs(batch.in_state(FRAME)):
                frames_NHWC[run].copy_(self._input_NHWC[batch.slot, run], non_blocking=True)

    def _load_on_cpu(self, batch: SlotBatch, row: int) -> None:
        """Into the slot, what the GPU could not decode: as a worker does it."""
        try:
            data = self._coded[batch.slot, row, : batch.found["coded"][row]].tobytes()
            frame_HWC, _ = self._stages.files.load(batch.pairs[row], self._stages.clock, data=data)
        except Failure as error:
            batch.fail(row, error)
        else:
            self._input_NHWC[batch.slot, row] = torch.from_numpy(np.array(frame_HWC, order="C"))
            batch.found["state"][row] = FRAME

    def start(self, batch: SlotBatch, slot: int) -> None:
        """Queue the engine's work on the slot that was loaded last, and its way to that output slot."""
        buffer, rows, high_depth = self._free.popleft(), batch.rows, set(batch.in_state(HIGH_DEPTH))
        frames_NHWC, translated_NHWC = self._frames[buffer], self._translated[buffer][: len(rows)]
        self._engine.wait_stream(self._loads)
        with torch.cuda.stream(self._engine), self._clock("generate", len(rows), lane="engine stream"):
            first = 0
            for some in batches(rows, self._batch_size):
                inputs_NHWC = rows_of(frames_NHWC, some)
                if not high_depth.isdisjoint(some):
                    inputs_NHWC = self._with_high_depth(batch, inputs_NHWC, some, high_depth)
                self._translate(inputs_NHWC, translated_NHWC[first : first + len(some)])
                first += len(some)
        self._downloads.wait_stream(self._engine)
        with torch.cuda.stream(self._downloads):
            self._output_NHWC[slot, : len(rows)].copy_(translated_NHWC, non_blocking=True)
            self._downloaded[buffer].record()
        self._running.append((batch, slot, buffer))

    def _with_high_depth(
        self, batch: SlotBatch, frames_NHWC: torch.Tensor, rows: list[int], high_depth: set[int]
    ) -> torch.Tensor:
        """float32 in [-1, 1], for some images have more than 8 bits: rare, and waits."""
        values_NHWC = from_frames(frames_NHWC).permute(0, 2, 3, 1)
        for row in high_depth.intersection(rows):
            values_NHWC[rows.index(row)].copy_(self._high_depth_NHWC[batch.slot, row])
        return values_NHWC

    def _translate(self, frames_NHWC: torch.Tensor, output_NHWC: torch.Tensor) -> None:
        def translate(part: slice) -> None:
            # Copied at once: a program may return the same memory every time.
            output_NHWC[part].copy_(self._stages.generate(frames_NHWC[part]))

        self._stages.parts(len(frames_NHWC), translate)

    def ready(self) -> bool:
        """Whether `finish` returns at once."""
        return bool(self._running) and self._downloaded[self._running[0][2]].query()

    def finish(self) -> tuple[SlotBatch, int]:
        """The oldest batch, whose input slot is free again, and the output slot that it is in. Waits for it."""
        batch, slot, buffer = self._running.popleft()
        self._downloaded[buffer].synchronize()
        self._free.append(buffer)
        return batch, slot

    def close(self) -> None:
        """Count what the streams' events have measured."""
        self._clock.finish()
        if self._stages.loader is not None:
            self._stages.loader.finish()

    def end(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Wait for copies from and to the slots, whose memory goes next; not for a GPU that failed."""
        if error is None or failure(error) is None:
            torch.cuda.synchronize(self._device)


def rows_of(frames_NHWC: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """Those rows, in ascending order: a view where there is no gap."""
    parts = [frames_NHWC[run] for run in runs(rows)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)
