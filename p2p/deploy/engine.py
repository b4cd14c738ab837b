"""An exported generator, ready to run."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch

from p2p.batch import from_frames, to_frames
from p2p.deploy.artifact import recover
from p2p.deploy.backend import Backend, Run, check_trusted, find, names
from p2p.deploy.compatible import AGAIN, check_gpu, check_versions
from p2p.deploy.cuda_graph import Captured
from p2p.deploy.manifest import Manifest, Program, gpu_facts
from p2p.system.gpu_faults import TooSmall, failure, in_numbers, memory_full
from p2p.system.plural import counted

log = logging.getLogger(__name__)


class Engine:
    """The generator as a function, without its model code.

    Args:
        manifest: what the program takes and gives.
        program: the loaded program.
        device: where it runs.
    """

    def __init__(self, *, manifest: Manifest, program: Run, device: torch.device):
        self.manifest = manifest
        self.device = device
        self._program = program
        self._converting: Captured | None = None
        self._dtype = getattr(torch, manifest.program.dtype)

    @property
    def takes_frames(self) -> bool:
        """Whether the program takes and gives uint8 (N, H, W, C), so that `frames` is the short way."""
        return self._dtype == torch.uint8

    def check_batch_size(self, batch_size: int) -> None:
        """Raise a ValueError if the program does not take batches of this size; say so if it pads them."""
        program = self.manifest.program
        largest = program.max_batch
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} is too small: use 1 or more")
        if largest is not None and batch_size > largest:
            setting = f"backend.max_batch={batch_size}"
            if program.considered is not None:
                setting = f"batch_size={batch_size}"
            elif program.min_batch > 1:
                setting = f"backend.min_batch={batch_size} backend.max_batch={batch_size}"
            raise ValueError(
                f"batch_size={batch_size} does not fit the exported program, which takes {counted(largest, 'image')} at"
                f" most: choose another, or export again with {setting}"
            )
        if batch_size < program.min_batch:
            log.warning(
                "the program was built for batches of %d, and smaller ones take as long: use batch_size=%d",
                program.min_batch,
                program.min_batch,
            )

    @torch.inference_mode()
    def __call__(self, input_NCHW: torch.Tensor) -> torch.Tensor:
        """float (N, C, H, W) in [-1, 1], on any device -> the same on the engine's device, in the program's dtype.

        Of a program that takes frames the result is float32, and both sides are rounded to 8 bits.

        Queues its work on the current stream and does not wait for it. A batch below the program's smallest is
        filled up with its last image.
        """
        if self.takes_frames:
            return from_frames(self.frames(to_frames(input_NCHW.to(self.device, non_blocking=True))))
        return self._run(input_NCHW)

    @torch.inference_mode()
    def frames(self, frames_NHWC: torch.Tensor) -> torch.Tensor:
        """uint8 (N, H, W, C), on any device -> uint8 (N, H, W, C') on the engine's device; otherwise as a call."""
        if self.takes_frames:
            return self._run(frames_NHWC)
        program: Run = self._convert
        if isinstance(self._program, Captured):
            # In a graph of their own: to launch both conversions takes 0.15 ms, as long as a fast generator's image.
            self._converting = self._converting or Captured(self._convert, device=self.device, dtype=torch.uint8)
            program = self._converting
        frames_NHWC = frames_NHWC.to(self.device, non_blocking=True)
        return run_padded(program, frames_NHWC, min_batch=self.manifest.program.min_batch)

    def _convert(self, frames_NHWC: torch.Tensor) -> torch.Tensor:
        """`frames` of a program that does not take them, without a graph."""
        program = self._program.program if isinstance(self._program, Captured) else self._program
        output_NCHW = program(from_frames(frames_NHWC).to(self._dtype))
        return to_frames(self._checked(output_NCHW, size=frames_NHWC.shape[1:3]))

    def _run(self, images: torch.Tensor) -> torch.Tensor:
        images = images.to(self.device, self._dtype, non_blocking=True)
        size = images.shape[1:3] if self.takes_frames else images.shape[2:]
        outputs = run_padded(self._program, images, min_batch=self.manifest.program.min_batch)
        return self._checked(outputs, size=size)

    def _checked(self, outputs: torch.Tensor, *, size: torch.Size) -> torch.Tensor:
        """The program's outputs for images of that height and width."""
        channels, *fixed = self.manifest.output_shape
        height, width = fixed if self.manifest.program.sizes is None else size
        expected = (height, width, channels) if outputs.dtype == torch.uint8 else (channels, height, width)
        if outputs.shape[1:] != expected:
            raise ValueError(f"the program gives images of {tuple(outputs.shape[1:])}, not of {expected}: {AGAIN}")
        return outputs


def run_padded(program: Run, images: torch.Tensor, *, min_batch: int) -> torch.Tensor:
    """The program's output for a batch, of either layout, that may be smaller than the program takes."""
    count = len(images)
    if count >= min_batch:
        return program(images)
    filling = images[-1:].expand(min_batch - count, -1, -1, -1)
    return program(torch.cat([images, filling]))[:count]


def load_engine(folder: Path, *, device: torch.device, whole: Manifest | None = None) -> Engine:
    """Load what `p2p.deploy.export` has written.

    Args:
        folder: of the artifact.
        device: where it is to run.
        whole: of an artifact whose program was found to be whole, see `Manifest.program_is_whole`.

    Raises:
        ValueError: nothing is there, it is damaged, or it does not run here: no GPU or one of another architecture,
            other versions of the libraries.
    """
    folder = Path(os.path.realpath(folder))
    recover(folder)
    manifest = Manifest.load(folder)
    try:
        engine = _load(manifest, folder, device=device, whole=manifest == whole)
    except ValueError:
        if Manifest.load(folder) == manifest:
            raise
    else:
        if Manifest.load(folder) == manifest:
            return engine
    return load_engine(folder, device=device)  # an export replaced it meanwhile


def _load(manifest: Manifest, folder: Path, *, device: torch.device, whole: bool) -> Engine:
    program = manifest.program
    path = folder / program.file
    if path.is_symlink() and path.resolve().parent != folder:
        raise ValueError(f"{path} is a link to a file elsewhere: put a copy of that file in its place")
    if not whole and not manifest.program_is_whole(folder):
        raise ValueError(f"{path} is missing, damaged or was replaced: {AGAIN}")
    if "." not in program.backend and program.backend not in names():
        raise ValueError(f"{path} needs backend={program.backend}, which this p2p does not have: {AGAIN}")
    check_trusted(program.backend, path)
    try:
        backend = find(program.backend)
    except ImportError as error:
        raise ValueError(f"{path} needs the backend {program.backend}, which cannot be imported ({error})") from error
    check_gpu(program, path, here=gpu_facts(device))
    check_versions(program, path, backend=backend)
    return Engine(manifest=manifest, program=load_program(backend, program, folder, device=device), device=device)


def load_program(backend: Backend, program: Program, folder: Path, *, device: torch.device) -> Run:
    """What `backend.load` returns.

    Raises:
        ValueError: it raises anything, for whatever reason the libraries below it have.
        TooSmall: the GPU's memory does not hold it.
    """
    path = folder / program.file
    try:
        return backend.load(program, folder, device=device)
    except ValueError:
        raise
    except Exception as error:  # of six libraries, each with classes of its own
        if (said := memory_full(error)) is not None:
            raise TooSmall(
                f"the GPU's memory does not hold {path}{in_numbers(said)}: end other programs that use this GPU, or"
                " export again with a smaller backend.max_batch or another backend"
            ) from error
        if failure(error) is not None:
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{path} cannot be loaded, because {reason}: {AGAIN}") from error
