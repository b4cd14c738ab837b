"""JPEG files to frames of the network's size, on a stream of the GPU: decoded, cut and resized a batch at a time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from PIL import Image

from p2p.codecs.codec import BatchDecoder, CodedFiles
from p2p.data.transforms import cvcuda
from p2p.data.transforms.sizing import Sizing
from p2p.pipelines.parts import Parts
from p2p.profiling.clock import Clock
from p2p.profiling.streams import StreamClock
from p2p.system.gpu_faults import memory_full

Half = Literal["left", "right"] | None
LANE = "loader stream"


class GpuLoader:
    """Loads batches of files of which `p2p.pipelines.files.Files.gpu_size` says that it may. For one thread.

    Args:
        decoder: of the files.
        sizing: brings frames to the network's size.
        device: the GPU.
        clock: measures both stages; the decoder's on the host, which waits for the JPEG engines, the other on the
            stream.

    Attributes:
        stream: where all of it happens.
    """

    def __init__(self, *, decoder: BatchDecoder, sizing: Sizing, device: torch.device, clock: Clock):
        self._decoder = decoder
        self._sizing = sizing
        self._clock = clock
        self._stream_clock = StreamClock(clock, device=device)
        self._parts = Parts(what="batches to decode")
        self.stream = torch.cuda.Stream(device)

    def warmup(self, batch_size: int, height: int, width: int) -> None:
        """Do once what the first batch would wait for: the decoder's buffers, say."""
        buffer = io.BytesIO()
        Image.new("RGB", (width, height)).save(buffer, "JPEG")
        file = np.frombuffer(buffer.getvalue(), np.uint8)
        facts = file.ctypes.data, len(file), (height, width)
        files = CodedFiles(*(np.array([fact] * batch_size) for fact in facts))
        self._parts(batch_size, lambda part: self._decoder.decode(files.some(part), stream=self.stream))
        self.stream.synchronize()

    def __call__(
        self, files: CodedFiles, halves: Sequence[Half], output_NHWC: torch.Tensor, rows: Sequence[int]
    ) -> list[int]:
        """Fill rows with what files hold; returns the places of those that cannot be decoded.

        Args:
            files: with the sizes of what is taken of them; their memory may change again when `stream` has come so far.
            halves: which half of each to take.
            output_NHWC: uint8 on the GPU, in the order of `stream`.
            rows: where in it each file goes, in ascending order.
        """

        def load(part: slice) -> list[int]:
            try:
                missed = self._load(files.some(part), halves[part], output_NHWC, rows[part])
            except Exception as error:
                if part.stop - part.start > 1 or memory_full(error) is None:
                    raise
                missed = [0]  # an image that is too large for the GPU may not be for the CPU
            return [part.start + place for place in missed]

        return [place for missed in self._parts(len(rows), load) for place in missed]

    def _load(
        self, files: CodedFiles, halves: Sequence[Half], output_NHWC: torch.Tensor, rows: Sequence[int]
    ) -> list[int]:
        with self._clock("decode", len(rows), lane="decoder"):
            times = np.array([(1, 1 if half is None else 2) for half in halves])
            files = files._replace(sizes=files.sizes * times)
            groups, missed = self._decoder.decode(files, stream=self.stream)
        with torch.cuda.stream(self.stream), self._stream_clock("preprocess", len(rows), lane=LANE):
            for places, frames in groups:
                for half in dict.fromkeys(halves[place] for place in places):
                    chosen = [i for i, place in enumerate(places) if halves[place] == half]
                    same = frames if len(chosen) == len(places) else torch.stack([frames[i] for i in chosen])
                    put(self._sized(same, half), output_NHWC, [rows[places[i]] for i in chosen])
        return missed

    def _sized(self, frames_NHWC: torch.Tensor, half: Half) -> torch.Tensor:
        """Frames of one size -> uint8 (N, H, W, C) of the network's."""
        middle = frames_NHWC.shape[2] // 2
        cut = slice(middle) if half == "left" else slice(middle, None) if half == "right" else slice(None)
        frames_NHWC = frames_NHWC[:, :, cut]
        _, height, width, _ = frames_NHWC.shape
        if (size := self._sizing.scaled(height, width, self._sizing.size)) != (height, width):
            frames_NHWC = cvcuda.resize(frames_NHWC.contiguous(), *size, stream=self.stream)
        return self._sizing.crop(frames_NHWC)

    def finish(self) -> None:
        """Wait for what is under way, and count it."""
        self._stream_clock.finish()


def put(frames_NHWC: torch.Tensor, output_NHWC: torch.Tensor, rows: Sequence[int]) -> None:
    """Copy frames to rows in ascending order; a list of rows would be copied to the GPU, and waited for."""
    first = 0
    for run in runs(rows):
        last = first + run.stop - run.start
        output_NHWC[run].copy_(frames_NHWC[first:last])
        first = last


def runs(rows: Sequence[int]) -> list[slice]:
    """Ascending rows as slices without gaps."""
    ends = [place for place in range(1, len(rows)) if rows[place] != rows[place - 1] + 1]
    bounds = pairwise([0, *ends, len(rows)]) if len(rows) else ()
    return [slice(rows[first], rows[last - 1] + 1) for first, last in bounds]
