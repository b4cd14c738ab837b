"""The stages an image goes through, as plain callables. The pipelines arrange them in time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch

from p2p.batch import from_frames, to_frames
from p2p.codecs.codec import Codec, CodedFiles, GpuCodec
from p2p.data.pairs import Pair
from p2p.data.transforms import cvcuda
from p2p.data.transforms.sizing import Sizing
from p2p.data.transforms.transform import Transform
from p2p.deploy.engine import Engine
from p2p.deploy.sizes import Size
from p2p.pipelines import groups
from p2p.pipelines.any_size import Frame, any_size, stacked
from p2p.pipelines.files import Failure, files_for
from p2p.pipelines.gpu_loader import GpuLoader
from p2p.pipelines.groups import Groups
from p2p.pipelines.image_stats import ImageStats
from p2p.pipelines.outcome import Outcome
from p2p.pipelines.parts import Parts
from p2p.profiling.clock import Clock
from p2p.system.memory import check_room

FLOAT_BYTES = 4


class Loaded(NamedTuple):
    """An input as `Files.load` gives it, (H, W, C): uint8, or float32 in [-1, 1] where its file has more than 8 bits.

    With the size that it had, for `save`.
    """

    pair: Pair
    frame_HWC: np.ndarray
    size: Size


class Stages(Outcome):
    """load (decode, preprocess), translate (generate) and save (encode, write), timed by a clock.

    `files` does what needs no engine, here or in a worker. An image that cannot be read or written ends up in
    `failures` and its batch goes on without it; a batch that the GPU's memory does not hold is translated in `parts`;
    whatever else goes wrong is raised.

    Args:
        engine, transform, codec: do the work.
        output: folder that the written files' names are relative to.
        clock: measures each stage.
        size: "model", what the program was made for; "input" or "tile", see `p2p.pipelines.any_size`.
        tile_stats: of "tile": "tile" or "image", what instance norms go by.
        fit: of "model": "stretch", or "pad", see `p2p.data.transforms.letterbox`.
        restore_size: of "model": write each output at the size of its input.
        keeps_alpha: write each output as transparent as its input.

    Attributes:
        any_size: translates images at their own sizes; None: at the model's.
        on_batch: called after each batch of images at their own sizes, of which a group may take minutes.
        loader: decodes on the GPU, where the codec has it do that; else None.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        transform: Transform,
        codec: Codec,
        output: Path,
        clock: Clock,
        size: Literal["model", "input", "tile"] = "model",
        tile_stats: Literal["tile", "image"] = "tile",
        fit: Literal["stretch", "pad"] = "stretch",
        restore_size: bool = False,
        keeps_alpha: bool = False,
    ):
        super().__init__()
        self.engine = engine
        self.transform = transform
        self._size = size
        self.any_size = any_size(size, engine.manifest, tile_stats=tile_stats)
        self._once = tile_stats == "image"  # a batch that is begun again would be counted twice
        self.files = files_for(
            engine.manifest,
            codec=codec,
            sizing=transform.sizing,
            output=output,
            size=size,
            fit=fit,
            restore_size=restore_size,
            keeps_alpha=keeps_alpha,
        )
        self.loader = _gpu_loader(codec, self.files.sizing, engine.device, clock)
        self.files.gpu_decodes = _gpu_decodes(self.loader)
        if (bits := self.files.bits) > 8 and engine.takes_frames:
            raise ValueError(
                f"codec.bits={bits} needs more than the 8 bits that a program of frames=true gives: export without it"
            )
        self.parts = Parts(least=lambda: engine.manifest.program.min_batch)
        self.clock = clock
        self.on_batch: Callable[[], object] = lambda: None

    def path(self, name: str) -> Path:
        """Where the output of that name is written."""
        return self.files.path(name)

    def plan(self, pairs: list[Pair], *, batch_size: int) -> Groups:
        """Which of the pairs are loaded, translated and saved together: the same in every pipeline."""
        return groups.plan(pairs, self.files, self.engine.manifest, size=self._size, batch_size=batch_size)

    def warmup(self, batch_size: int, *, images: int) -> None:
        """Make the output's folder, and run the engine once on zeros, so that no image pays for its first-time work.

        On a GPU for every size of batch, each of which may need a CUDA graph, say; on a CPU one image will do.

        Raises:
            ValueError: there is no memory for such batches, or tile_stats=image finds no instance norm.
        """
        self.files.make_folder()
        shapes = self.engine.manifest.input_shape, self.engine.manifest.output_shape
        check_room(
            batch_size * sum(FLOAT_BYTES * math.prod(shape) for shape in shapes),
            what=f"use a smaller batch_size: what the network takes and gives for {batch_size} images",
        )
        # Some of cuDNN's kernels add in the order in which threads arrive: files would differ from run to run.
        torch.backends.cudnn.deterministic = True
        every = self.engine.device.type == "cuda" and self.any_size is None
        sizes = (batch_size, images % batch_size) if every else (1,)
        with self.clock("warmup"), ImageStats() if self._once else nullcontext() as stats:
            for size in filter(None, sizes):
                self.parts(size, self._warm_up)
        if stats is not None:
            stats.check()

    def _warm_up(self, part: slice) -> None:
        channels, height, width = self.engine.manifest.input_shape
        self.generate(torch.zeros(part.stop - part.start, height, width, channels, dtype=torch.uint8)).cpu()

    def load(self, pair: Pair) -> Loaded | None:
        """Read one input; None, and a reason in `failures`, if that cannot be done. From one thread at a time."""
        data = frame_HWC = None
        try:
            if self.loader is not None:
                with self.clock("decode", images=0):
                    data = self.files.read(pair)
                size = self.files.gpu_size(pair, data)
                frame_HWC = None if size is None else self._load_on_gpu(pair, data, size)
            if frame_HWC is None:
                frame_HWC, size = self.files.load(pair, self.clock, data=data)
        except Failure as error:
            self.fail(pair, *error.args)
            return None
        return Loaded(pair, frame_HWC, size)

    def _load_on_gpu(self, pair: Pair, data: bytes, size: Size) -> np.ndarray | None:
        """What `load` makes of a file; None where the CPU says what is wrong, or makes it out."""
        _, height, width = self.files.input_shape
        file = np.frombuffer(data, np.uint8)
        files = CodedFiles(*(np.array([fact]) for fact in (file.ctypes.data, len(file), size)))
        with torch.cuda.stream(self.loader.stream):
            frames_NHWC = torch.empty(1, height, width, 3, dtype=torch.uint8, device=self.engine.device)
            missed = self.loader(files, [pair.input.half], frames_NHWC, [0])
            frame_HWC = None if missed else frames_NHWC[0].cpu().numpy()
        self.loader.finish()
        return frame_HWC

    def generate(self, frames_NHWC: torch.Tensor) -> torch.Tensor:
        """Frames as they are loaded, uint8 or float32 (N, H, W, C) -> uint8 (N, H, W, C') on the engine's device.

        For outputs of more than 8 bits float32 in [-1, 1].
        """
        if self.files.bits > 8:
            return self.engine(from_frames(frames_NHWC)).float().clamp(-1.0, 1.0).permute(0, 2, 3, 1)
        if frames_NHWC.dtype == torch.uint8:
            return self.engine.frames(frames_NHWC)
        return to_frames(self.engine(from_frames(frames_NHWC)))

    def outputs(self, images: list[Loaded], *, batch_size: int) -> Sequence[np.ndarray]:
        """Of a group that was loaded an output each, `Files.output_dtype` (H, W, C'). Waits for the GPU."""
        if self.any_size is None:
            return list(self.translate(stacked([image.frame_HWC for image in images])))
        channels = self.engine.manifest.output_shape[0]
        outputs = [np.empty((*image.frame_HWC.shape[:2], channels), self.files.output_dtype) for image in images]
        self.fill([image.frame_HWC for image in images], outputs, batch_size=batch_size)
        return outputs

    def fill(self, frames: Sequence[Frame], outputs: Sequence[Frame], *, batch_size: int) -> None:
        """`outputs` of images at their own sizes, into memory that is there."""

        def work(part_NHWC: torch.Tensor) -> torch.Tensor:  # a copy: a program may return the same memory
            done_NHWC = self.generate(part_NHWC.to(self.engine.device)).clone()
            self.on_batch()
            return done_NHWC

        def generate(frames_NHWC: torch.Tensor) -> torch.Tensor:
            if self._once:
                return work(frames_NHWC)
            done = self.parts(len(frames_NHWC), lambda part: work(frames_NHWC[part]))
            return done[0] if len(done) == 1 else torch.cat(done)

        assert self.any_size is not None
        with self.clock("generate", len(frames)):
            self.any_size.translate(frames, outputs, generate, batch_size=batch_size)

    def translate(self, frames_NHWC: torch.Tensor) -> np.ndarray:
        """What `generate` takes -> what it gives on the host. Waits for the GPU."""
        done = self.parts(len(frames_NHWC), lambda part: self._translate(frames_NHWC[part]))
        return done[0] if len(done) == 1 else np.concatenate(done)

    def _translate(self, frames_NHWC: torch.Tensor) -> np.ndarray:
        with self.clock("generate", len(frames_NHWC)):
            return self.generate(frames_NHWC.to(self.engine.device)).cpu().numpy()

    def save(self, pair: Pair, frame_HWC: np.ndarray, size: Size) -> None:
        """Encode and write one output, of an input of that size. A file appears whole or not at all."""
        try:
            self.files.save(pair, frame_HWC, size, self.clock)
        except Failure as error:
            self.fail(pair, *error.args)
        else:
            self.on_image()


def _gpu_loader(codec: Codec, sizing: object, device: torch.device, clock: Clock) -> GpuLoader | None:
    """What loads on the GPU, where the codec has it decode."""
    if not isinstance(codec, GpuCodec) or type(sizing) is not Sizing:  # another's does what it likes
        return None
    if (decoder := codec.gpu_decoder(device)) is None:
        return None
    return GpuLoader(decoder=decoder, sizing=sizing, device=device, clock=clock)


def _gpu_decodes(loader: GpuLoader | None) -> Literal["same size", "any size"] | None:
    """What a GPU may decode, see `Files`."""
    if loader is None:
        return None
    if reason := cvcuda.unavailable():
        print(f"{reason}: what is to be resized is decoded and resized by the CPU")
        return "same size"
    return "any size"


class Pipeline(Protocol):
    """Arranges the stages in time. Another one is a function of this kind and one YAML."""

    def __call__(self, pairs: list[Pair], stages: Stages, *, batch_size: int) -> None:
        """Translate all pairs' inputs, `batch_size` at a time, and write the same bytes as `p2p.pipelines.sequential`.

        The engine's warm-up, `stages.warmup`, comes first; then all is within `stages.clock("e2e", len(pairs))`.
        """
