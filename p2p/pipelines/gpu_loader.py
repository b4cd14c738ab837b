"""Decode and preprocess on a GPU: JPEG files in, what the engine takes out, on a stream of its own."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image

from p2p.batch import from_frames
from p2p.codecs.codec import BatchDecoder
from p2p.data.transforms.sizing import Sizing
from p2p.data.transforms.transform import GpuTransform
from p2p.pipelines.parts import Parts
from p2p.profiling.clock import Clock
from p2p.profiling.streams import StreamClock

Half = Literal["left", "right"] | None


class GpuLoader:
    """Loads batches of files of which `p2p.pipelines.files.Files.gpu_size` says that it may. For one thread.

    Args:
        decoder: of the files.
        sizing: crops, where no frame needs a resize.
        transform: brings frames of any size to the network's; None where they need none.
        device: the GPU.
        parts: of a batch, where its memory does not hold the whole.
        clock: measures both stages; the decoder's on the host, which waits for it, the other on the stream.
        lane: the stream's name there.
    """

    def __init__(
        self,
        *,
        decoder: BatchDecoder,
        sizing: Sizing,
        transform: GpuTransform | None,
        device: torch.device,
        parts: Parts,
        clock: Clock,
        lane: str,
    ):
        self._decoder = decoder
        self._sizing = sizing
        self._transform = transform
        self._parts = parts
        self._clock = clock
        self._stream_clock = StreamClock(clock, device=device)
        self._lane = lane
        self.stream = torch.cuda.Stream(device)

    def warmup(self, batch_size: int, height: int, width: int) -> None:
        """Do once, in the thread that will, what the first batch would wait a second for: loading kernels, say."""
        buffer = io.BytesIO()
        Image.new("RGB", (width, height)).save(buffer, "JPEG")
        files = [np.frombuffer(buffer.getvalue(), np.uint8)] * batch_size

        def load(part: slice) -> None:
            with torch.cuda.stream(self.stream):
                for _, frames in self._decoder.decode(files[part], stream=self.stream)[0]:
                    self._preprocess(frames, None)

        self._parts(batch_size, load)
        self.stream.synchronize()

    def __call__(
        self, files: Sequence[np.ndarray], halves: Sequence[Half], output_NCHW: torch.Tensor, rows: Sequence[int]
    ) -> list[int]:
        """Fill rows with what files, uint8 (bytes,), hold; returns the places of those that cannot be decoded.

        Args:
            files: whole ones, which may change again when this returns.
            halves: which half of each to take.
            output_NCHW: float32 on the GPU, in the order of `stream`.
            rows: where in it each file goes, in ascending order.
        """

        def load(part: slice) -> list[int]:
            missed = self._load(files[part], halves[part], output_NCHW, rows[part])
            return [part.start + place for place in missed]

        return [place for missed in self._parts(len(files), load) for place in missed]

    def _load(
        self, files: Sequence[np.ndarray], halves: Sequence[Half], output_NCHW: torch.Tensor, rows: Sequence[int]
    ) -> list[int]:
        with self._clock("decode", len(files)):
            groups, missed = self._decoder.decode(files, stream=self.stream)
        with torch.cuda.stream(self.stream):
            for places, frames in groups:
                with self._stream_clock("preprocess", len(places), lane=self._lane):
                    for half in dict.fromkeys(halves[place] for place in places):
                        chosen = [i for i, place in enumerate(places) if halves[place] == half]
                        same = frames if len(chosen) == len(places) else torch.stack([frames[i] for i in chosen])
                        made = self._preprocess(same, half)
                        put(made, output_NCHW, [rows[places[i]] for i in chosen])
        return missed

    def _preprocess(self, frames_NHWC: torch.Tensor, half: Half) -> torch.Tensor:
        """Frames of one size -> float32 (N, C, H, W) in [-1, 1] of the network's."""
        if self._transform is not None:
            return self._transform.eval_batch(frames_NHWC, stream=self.stream, half=half)
        middle = frames_NHWC.shape[2] // 2
        cut = slice(middle) if half == "left" else slice(middle, None) if half == "right" else slice(None)
        return from_frames(self._sizing.crop(frames_NHWC[:, :, cut]))

    def finish(self) -> None:
        """Wait for what is under way, and count it."""
        self._stream_clock.finish()


def put(images_NCHW: torch.Tensor, output_NCHW: torch.Tensor, rows: Sequence[int]) -> None:
    """Copy images to rows in ascending order; a list of rows would be copied to the GPU, and waited for."""
    if rows[-1] - rows[0] + 1 == len(rows):
        output_NCHW[rows[0] : rows[-1] + 1].copy_(images_NCHW)
        return
    for row, image_CHW in zip(rows, images_NCHW, strict=True):
        output_NCHW[row].copy_(image_CHW)
