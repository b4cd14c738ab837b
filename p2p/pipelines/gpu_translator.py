"""The GPU's engine between two rings of slots: waits on the host for nothing but the oldest batch."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType

import numpy as np
import torch

from p2p.batch import from_frames, to_frames
from p2p.pipelines.files import Failure
from p2p.pipelines.gpu_loader import GpuLoader, put
from p2p.pipelines.slots import CODED
from p2p.pipelines.stages import Stages
from p2p.pipelines.translator import SlotBatch, gather
from p2p.profiling.streams import StreamClock
from p2p.system.gpu_faults import failure

DECODERS = 2  # threads: while one hands a batch to the GPU's decoder, it decodes the other's


class GpuTranslator:
    """Copies to the GPU or its decoder, engine and copies from it on a stream each, `depth` batches at a time.

    Only events order them: no stage waits for the device, and the host waits for the oldest batch, asleep.
    Conversions run on the GPU, so 3 bytes a pixel travel back, one copy a batch, and forth, where the CPU decodes.
    nvImageCodec's call waits for its decoder, so it has threads of its own.

    Args:
        stages: what is done.
        input_NHWC, high_depth_NHWC, output_NHWC: the slots.
        coded: the slots' files, uint8 (slots, batch, bytes), where the GPU decodes.
        wake: called, from another thread, when `prepare` has done its work.

    Attributes:
        decodes: whether a batch must be prepared before it is started.
    """

    depth = 2

    def __init__(
        self,
        stages: Stages,
        input_NHWC: np.ndarray,
        high_depth_NHWC: np.ndarray,
        output_NHWC: np.ndarray,
        *,
        coded: np.ndarray | None,
        wake: Callable[[], object],
    ):
        device = stages.engine.device
        self._stages = stages
        self._clock = StreamClock(stages.clock, device=device)  # before the streams: it waits for the device
        self._inputs = input_NHWC, high_depth_NHWC
        self._coded = coded
        self._output_NHWC = torch.from_numpy(output_NHWC)
        self._wake = wake
        self._uploads, self._engine, self._downloads = (torch.cuda.Stream(device) for _ in range(3))
        self.decodes = coded is not None
        self._loaders = [stages.gpu_loader(f"decoder stream {i}") for i in range(DECODERS if self.decodes else 0)]
        self._local = threading.local()
        self._threads = ThreadPoolExecutor(DECODERS, thread_name_prefix="decoder")
        self._begin(*input_NHWC.shape[1:4])
        # Buffers of its own: the allocator's, freed on one stream while another reads, would need its bookkeeping.
        buffers = range(self.in_hand(decodes=self.decodes))
        batch_size, height, width, channels = input_NHWC.shape[1:]
        self._device_inputs = [
            torch.empty(input_NHWC.shape[1:], dtype=torch.uint8, device=device)
            for _ in (() if self.decodes else buffers)
        ]
        self._device_outputs = [torch.empty(output_NHWC.shape[1:], dtype=torch.uint8, device=device) for _ in buffers]
        self._loaded_NCHW = [
            torch.empty(batch_size, channels, height, width, device=device) for _ in (buffers if self.decodes else ())
        ]
        torch.cuda.synchronize(device)  # on the current stream, that memory may still have another use
        self._free = deque(buffers)
        self._running: deque[tuple[SlotBatch, int, torch.cuda.Event]] = deque()

    @classmethod
    def in_hand(cls, *, decodes: bool) -> int:
        """Batches that may be on the GPU at a time: in the engine's queue and, for each decoder, one and the next."""
        return cls.depth + (2 * DECODERS if decodes else 0)

    @classmethod
    def held(cls, batch_size: int, stages: Stages) -> int:
        """The batch size, or as many images as the buffers may be for: with half of the memory that is free."""
        manifest, decodes = stages.engine.manifest, stages.files.gpu_decodes is not None
        image = math.prod(manifest.input_shape) * (4 if decodes else 1) + math.prod(manifest.output_shape)
        free, _ = torch.cuda.mem_get_info(stages.engine.device)
        most = free // 2 // (cls.in_hand(decodes=decodes) * image)
        if not 1 <= most < batch_size:
            return batch_size
        print(f"the GPU's memory holds buffers for batches of {most}: going on with them")
        return most

    def __len__(self) -> int:
        return len(self._running)

    def _begin(self, batch_size: int, height: int, width: int) -> None:
        """Give each thread a loader of its own, warmed up."""
        together = threading.Barrier(DECODERS)  # or the first to be done would take the other's, too

        def begin(loader: GpuLoader) -> None:
            self._local.loader = loader
            try:
                loader.warmup(batch_size, height, width)
            except BaseException:
                together.abort()
                raise
            with suppress(threading.BrokenBarrierError):  # the other thread says why
                together.wait()

        for future in [self._threads.submit(begin, loader) for loader in self._loaders]:
            future.result()

    def prepare(self, batch: SlotBatch) -> Future | None:
        """Have a batch decoded, whose result `start` takes; None where no memory is free for that."""
        if not self._free:
            return None
        batch.buffer = self._free.popleft()
        future = self._threads.submit(self._load, batch)
        future.add_done_callback(lambda _: self._wake())
        return future

    def _load(self, batch: SlotBatch) -> torch.cuda.Event:
        """In a thread: decode what is coded, and put the rest, which the CPU has decoded, beside it."""
        loader, output_NCHW = self._local.loader, self._loaded_NCHW[batch.buffer]
        rows = batch.in_state(CODED)
        if rows:
            files = [self._coded[batch.slot, row, : batch.found["coded"][row]] for row in rows]
            halves = [batch.pairs[row].input.half for row in rows]
            for place in loader(files, halves, output_NCHW, rows):
                self._load_on_cpu(batch, rows[place], output_NCHW, loader)
        others = sorted(set(batch.rows).difference(rows))
        with torch.cuda.stream(loader.stream):
            if others:
                frames = gather(batch, others, *self._inputs)
                put(from_frames(frames.to(self._stages.engine.device, non_blocking=True)), output_NCHW, others)
            loaded = torch.cuda.Event()
            loaded.record()
        return loaded

    def _load_on_cpu(self, batch: SlotBatch, row: int, output_NCHW: torch.Tensor, loader: GpuLoader) -> None:
        """What the GPU could not decode."""
        try:
            frame_HWC, _ = self._stages.files.load(batch.pairs[row], self._stages.clock)
        except Failure as error:
            batch.fail(row, error)
            return
        with torch.cuda.stream(loader.stream):
            frames = torch.from_numpy(np.array(frame_HWC, order="C"))[None].to(self._stages.engine.device)
            put(from_frames(frames), output_NCHW, [row])

    def start(self, batch: SlotBatch, slot: int, loaded: torch.cuda.Event | None = None) -> None:
        """Queue a batch, which will be in that output slot; `loaded` is what its `prepare` has led to."""
        rows = batch.rows
        if batch.buffer is None:
            batch.buffer = self._free.popleft()
        translated = torch.cuda.Event()
        downloaded = torch.cuda.Event(blocking=True)
        frames = None if loaded is not None else self._upload(batch)
        with torch.cuda.stream(self._engine):
            if frames is not None:
                self._engine.wait_stream(self._uploads)
            else:
                self._engine.wait_event(loaded)
            device_output = self._device_outputs[batch.buffer][: len(rows)]

            def translate(part: slice) -> None:
                if frames is not None:
                    inputs = self._stages.inputs_of(frames[part])
                else:
                    inputs = rows_of(self._loaded_NCHW[batch.buffer], rows[part])
                with self._clock("generate", len(inputs), lane="engine stream"):
                    outputs = self._stages.generate(inputs)
                with self._clock("postprocess", len(inputs), lane="engine stream"):
                    device_output[part].copy_(to_frames(outputs))

            self._stages.parts(len(rows), translate)
            translated.record()
        with torch.cuda.stream(self._downloads):
            self._downloads.wait_event(translated)
            self._output_NHWC[slot, : len(rows)].copy_(device_output, non_blocking=True)
            downloaded.record()
        self._running.append((batch, slot, downloaded))

    def _upload(self, batch: SlotBatch) -> torch.Tensor:
        """The frames of a batch that the CPU has decoded, on the GPU."""
        frames = gather(batch, batch.rows, *self._inputs)
        with torch.cuda.stream(self._uploads):
            if frames.dtype == torch.uint8:
                return self._device_inputs[batch.buffer][: len(frames)].copy_(frames, non_blocking=True)
            frames = frames.to(self._stages.engine.device)  # rare, from pageable memory: this waits
            frames.record_stream(self._engine)
            return frames

    def ready(self) -> bool:
        """Whether `finish` returns at once."""
        return bool(self._running) and self._running[0][2].query()

    def finish(self) -> tuple[SlotBatch, int]:
        """The oldest batch, whose input slot is free again, and the output slot that it is in. Waits for it."""
        batch, slot, downloaded = self._running.popleft()
        downloaded.synchronize()
        self.release(batch)
        return batch, slot

    def release(self, batch: SlotBatch) -> None:
        """A batch that is done, or of which nothing could be read, needs its buffer no longer."""
        if batch.buffer is not None:
            self._free.append(batch.buffer)
            batch.buffer = None

    def close(self) -> None:
        """Count what the streams' events have measured."""
        self._clock.finish()
        for loader in self._loaders:
            loader.finish()

    def end(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Wait for what the threads have in hand, and for copies from and to the slots, whose memory goes next.

        For nothing after a GPU that failed: two of four such processes did not end, probably those with nvImageCodec.
        """
        failed = error is not None and failure(error) is not None
        self._threads.shutdown(wait=not failed, cancel_futures=True)
        if not failed:
            torch.cuda.synchronize(self._stages.engine.device)


def rows_of(images_NCHW: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """Those rows, in ascending order: a view where there is no gap."""
    first, last = rows[0], rows[-1]
    if last - first + 1 == len(rows):
        return images_NCHW[first : last + 1]
    return torch.cat([images_NCHW[row : row + 1] for row in rows])
