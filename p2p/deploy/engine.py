"""An exported generator, ready to run."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import torch

from p2p.deploy.manifest import Manifest, sha256


class Engine:
    """The generator as a function, without its model code.

    Args:
        manifest: what the program takes and gives.
        program: the loaded program.
        device: where it runs.
    """

    def __init__(self, *, manifest: Manifest, program: Callable[[torch.Tensor], torch.Tensor], device: torch.device):
        self.manifest = manifest
        self.device = device
        self._program = program
        self._dtype = getattr(torch, manifest.program.dtype)

    @property
    def channels(self) -> int:
        """Channels of the input images."""
        return self.manifest.input_shape[0]

    @property
    def image_size(self) -> int:
        """Side of the input images in pixels."""
        return self.manifest.input_shape[2]

    def check_batch_size(self, batch_size: int) -> None:
        """Raise a ValueError if the program does not take batches of this size."""
        largest = self.manifest.program.max_batch
        if batch_size < 1 or (largest is not None and batch_size > largest):
            raise ValueError(
                f"batch_size={batch_size} does not fit the exported program, which takes 1 to {largest or 'any number'}"
                f" of images: choose another, or export again with backend.max_batch={max(batch_size, 1)}"
            )

    @torch.inference_mode()
    def __call__(self, input_NCHW: torch.Tensor) -> torch.Tensor:
        """float (N, C, H, W) in [-1, 1], on any device -> the same on the engine's device, in the program's dtype.

        Queues its work on the current stream and does not wait for it.
        """
        return self._program(input_NCHW.to(self.device, self._dtype, non_blocking=True))


def load_engine(folder: Path, *, device: torch.device) -> Engine:
    """Load what `p2p.deploy.export` has written.

    Raises:
        ValueError: nothing is there, it is damaged, or it was made for another device.
    """
    manifest = Manifest.load(folder)
    program = manifest.program
    path = folder / program.file
    if not path.is_file() or sha256(path) != manifest.program_sha256:
        raise ValueError(f"{path} is missing, damaged or was replaced: run export.py again")
    if program.gpu is not None and device.type != "cuda":
        raise ValueError(
            f"{path} runs on a GPU ({program.gpu}), but device={device.type}: run export.py here, or with"
            " backend=exported_program for a program that runs on both"
        )
    backend = importlib.import_module(f"p2p.deploy.{program.backend}")
    return Engine(manifest=manifest, program=backend.load(path, device=device), device=device)
