"""The engine between two rings of slots: waits on the host for nothing but the oldest batch."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch

from p2p.batch import Batch, from_frames, to_frames
from p2p.pipelines.stages import Stages
from p2p.profiling.streams import StreamClock


@dataclass
class Rows:
    """A batch in an input slot.

    Attributes:
        slot: which one.
        rows: those that hold an image, in the batch's order; the others could not be read.
        deep: those of them that are in the slot's float32 half.
        images: of each row the name, and the height and width that its file had.
    """

    slot: int
    rows: list[int]
    deep: list[int]
    images: list[tuple[str, tuple[int, int]]]


def gather(batch: Rows, input_NHWC: np.ndarray, deep_NHWC: np.ndarray) -> torch.Tensor:
    """The frames of a batch, (N, H, W, C): a view of the slot, uint8, unless it has gaps or deep images."""
    frames = torch.from_numpy(input_NHWC[batch.slot])
    if not batch.deep and len(batch.rows) == batch.rows[-1] + 1:
        return frames[: len(batch.rows)]
    if not batch.deep:
        return frames[batch.rows]
    values = from_frames(frames).permute(0, 2, 3, 1)
    values[batch.deep] = torch.from_numpy(deep_NHWC[batch.slot, batch.deep])
    return values[batch.rows]


class OnCpu:
    """Translates a batch while the host waits; the workers do not."""

    depth = 1

    def __init__(self, stages: Stages, input_NHWC: np.ndarray, deep_NHWC: np.ndarray, output_NHWC: np.ndarray):
        self._stages = stages
        self._inputs = input_NHWC, deep_NHWC
        self._output_NHWC = output_NHWC
        self._done: deque[tuple[Rows, int]] = deque()

    def __len__(self) -> int:
        return len(self._done)

    def start(self, batch: Rows, slot: int) -> None:
        """Translate a batch into an output slot."""
        with self._stages.clock("generate", images=0):  # the images themselves are counted by `translate`
            input_NCHW = from_frames(gather(batch, *self._inputs))
        self._output_NHWC[slot, : len(batch.rows)] = self._stages.translate(
            Batch([name for name, _ in batch.images], input_NCHW)
        )
        self._done.append((batch, slot))

    def ready(self) -> bool:
        """Whether `finish` returns at once."""
        return True

    def finish(self) -> tuple[Rows, int]:
        """The oldest batch, whose input slot is free again, and the output slot that it is in."""
        return self._done.popleft()

    def close(self) -> None:
        """Nothing is left to measure."""


class OnGpu:
    """Copies to the GPU, engine and copies from it on a stream each, `depth` batches at a time.

    Only events order them: no stage waits for the device, and the host waits for the oldest batch, asleep.
    Conversions run on the GPU, so 3 bytes a pixel travel either way, one copy a batch.
    """

    depth = 2

    def __init__(self, stages: Stages, input_NHWC: np.ndarray, deep_NHWC: np.ndarray, output_NHWC: np.ndarray):
        device = stages.engine.device
        self._stages = stages
        self._clock = StreamClock(stages.clock, device=device)  # before the streams: it waits for the warm-up
        self._inputs = input_NHWC, deep_NHWC
        self._output_NHWC = torch.from_numpy(output_NHWC)
        self._uploads, self._engine, self._downloads = (torch.cuda.Stream(device) for _ in range(3))
        # Buffers of its own: the allocator's, freed on one stream while another reads, would need its bookkeeping.
        self._device_inputs = [torch.empty(input_NHWC.shape[1:], dtype=torch.uint8, device=device) for _ in range(2)]
        self._device_outputs = [torch.empty(output_NHWC.shape[1:], dtype=torch.uint8, device=device) for _ in range(2)]
        self._free = deque(range(self.depth))
        self._running: deque[tuple[Rows, int, int, torch.cuda.Event]] = deque()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, batch: Rows, slot: int) -> None:
        """Queue a batch, which will be in that output slot."""
        count, buffer = len(batch.rows), self._free.popleft()
        frames = gather(batch, *self._inputs)
        uploaded = torch.cuda.Event()
        translated = torch.cuda.Event()
        downloaded = torch.cuda.Event(blocking=True)
        with torch.cuda.stream(self._uploads):
            if frames.dtype == torch.uint8:
                frames = self._device_inputs[buffer][:count].copy_(frames, non_blocking=True)
            else:
                frames = frames.to(self._stages.engine.device)  # rare, from pageable memory: this waits
                frames.record_stream(self._engine)
            uploaded.record()
        with torch.cuda.stream(self._engine):
            self._engine.wait_event(uploaded)
            input_NCHW = from_frames(frames)
            with self._clock("generate", count, lane="engine stream"):
                output_NCHW = self._stages.engine(input_NCHW)
            with self._clock("postprocess", count, lane="engine stream"):
                self._device_outputs[buffer][:count].copy_(to_frames(output_NCHW))
            translated.record()
        with torch.cuda.stream(self._downloads):
            self._downloads.wait_event(translated)
            self._output_NHWC[slot, :count].copy_(self._device_outputs[buffer][:count], non_blocking=True)
            downloaded.record()
        self._running.append((batch, slot, buffer, downloaded))

    def ready(self) -> bool:
        """Whether `finish` returns at once."""
        return bool(self._running) and self._running[0][3].query()

    def finish(self) -> tuple[Rows, int]:
        """The oldest batch, whose input slot is free again, and the output slot that it is in. Waits for it."""
        batch, slot, buffer, downloaded = self._running.popleft()
        downloaded.synchronize()
        self._free.append(buffer)
        return batch, slot

    def close(self) -> None:
        """Count what the streams' events have measured."""
        self._clock.finish()
