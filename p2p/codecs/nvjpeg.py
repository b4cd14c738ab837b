"""JPEG files decoded by the JPEG engines of a GPU (A100, H100, H200 and others), a batch in one call of nvJPEG.

nvJPEG is called by ctypes, which lets go of the interpreter's lock: pointers go in, and the pixels of a whole batch lie
in memory of torch. No binding does both that and the interpolation of halved chroma: without it a picture of facades
is 28 dB from libjpeg's, with it no value differs by more than 1 in 255 (benchmarks/README.md).

Workers, which get the codec for its encoder, are spared the import of torch.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from p2p.codecs.fast import Fast

if TYPE_CHECKING:
    import torch

Groups = list[tuple[list[int], "torch.Tensor"]]

# Of nvjpeg.h.
HARDWARE = 3  # NVJPEG_BACKEND_HARDWARE
INTERPOLATE = 1 << 5  # NVJPEG_FLAGS_UPSAMPLING_WITH_INTERPOLATION
RGBI = 5  # NVJPEG_OUTPUT_RGBI: the three values of a pixel side by side
NO_MEMORY, NO_ENGINE = 5, 7  # NVJPEG_STATUS_ALLOCATOR_FAILURE, NVJPEG_STATUS_ARCH_MISMATCH
COMPONENTS = 4  # NVJPEG_MAX_COMPONENT
IMAGE = np.dtype([("channel", np.uintp, COMPONENTS), ("pitch", np.uintp, COMPONENTS)])  # nvjpegImage_t


class NvJpeg(Fast):
    """`Fast`, with its arguments, whose JPEG files a pipeline decodes on the GPU, where that can be done.

    All pipelines do, so that their files are the same bytes. Pixels differ from the CPU's by 1 in 255 at most.
    """

    def decoder(self, device: torch.device) -> NvJpegDecoder | None:
        """What decodes on that GPU; None where the CPU has to, and why is printed."""
        try:
            return NvJpegDecoder(device)
        except CannotDecode as reason:
            print(f"codec=nvjpeg cannot be used, because {reason}: the CPU decodes JPEG")
            return None


class CannotDecode(Exception):
    """Why a GPU cannot decode here, as half a sentence."""


class NvJpegDecoder:
    """Decodes batches of files of which `p2p.codecs.jpeg.gpu_size` says that the GPU may. For one thread.

    Raises:
        CannotDecode: there is no GPU, no nvJPEG, or no JPEG engine.
    """

    def __init__(self, device: torch.device):
        import torch

        self._device = device
        self._nvjpeg = _library(device)
        self._handle, self._state = ctypes.c_void_p(), ctypes.c_void_p()
        self._count = 0  # images that the state is prepared for
        with torch.cuda.device(device):
            torch.cuda.synchronize()  # makes torch's context, which nvJPEG then uses
            status = self._nvjpeg.nvjpegCreateEx(HARDWARE, None, None, INTERPOLATE, ctypes.byref(self._handle))
            if status == NO_ENGINE:
                raise CannotDecode(f"{torch.cuda.get_device_name(device)} has no JPEG engine")
            _check(status, "nvjpegCreateEx")
            _check(self._nvjpeg.nvjpegJpegStateCreate(self._handle, ctypes.byref(self._state)), "nvjpegJpegStateCreate")

    def decode(self, files: Sequence[np.ndarray], *, stream: torch.cuda.Stream) -> tuple[Groups, list[int]]:
        """Whole files, uint8 (bytes,) each -> for each size the places of its images and uint8 (N, H, W, 3).

        The frames are on the GPU in the order of `stream`. Then come the places of what could not be decoded. The
        engines do not wait for that stream: neither files nor frames may be used again before it has come so far.

        Raises:
            RuntimeError: the GPU's memory is full.
        """
        import torch

        places: dict[tuple[int, int], list[int]] = defaultdict(list)
        missed = []
        for place, file in enumerate(files):
            if (size := self._size(file)) is None:
                missed.append(place)
            else:
                places[size].append(place)
        if not places:
            return [], missed
        with torch.cuda.device(self._device), torch.cuda.stream(stream):
            groups = [
                (same, torch.empty(len(same), *size, 3, dtype=torch.uint8, device=self._device))
                for size, same in places.items()
            ]
            status = self._decode([files[place] for same, _ in groups for place in same], groups, stream)
        if status == NO_MEMORY:
            _check(status, "nvjpegDecodeBatched")
        if status == 0:
            return groups, missed
        if len(files) == 1:
            return [], [0]
        return self._one_by_one(files, stream)  # one that is damaged spoils its batch

    def _size(self, file: np.ndarray) -> tuple[int, int] | None:
        """Height and width as nvJPEG reads them, since it will write as many pixels; None if it reads nothing."""
        channels, chroma = ctypes.c_int(), ctypes.c_int()
        widths, heights = (ctypes.c_int * COMPONENTS)(), (ctypes.c_int * COMPONENTS)()
        found = channels, chroma, widths, heights
        status = self._nvjpeg.nvjpegGetImageInfo(self._handle, file.ctypes.data, file.size, *map(ctypes.byref, found))
        return None if status else (heights[0], widths[0])

    def _decode(self, files: list[np.ndarray], groups: Groups, stream: torch.cuda.Stream) -> int:
        """Queue the batch; returns nvJPEG's status."""
        if self._count != len(files):
            status = self._nvjpeg.nvjpegDecodeBatchedInitialize(self._handle, self._state, len(files), 1, RGBI)
            _check(status, "nvjpegDecodeBatchedInitialize")
            self._count = len(files)
        sources = np.array([file.ctypes.data for file in files], np.uintp)
        lengths = np.array([file.size for file in files], np.uintp)
        images = np.zeros(len(files), IMAGE)
        images["channel"][:, 0] = np.concatenate(
            [frames.data_ptr() + frames.stride(0) * np.arange(len(frames)) for _, frames in groups]
        )
        images["pitch"][:, 0] = np.concatenate([np.full(len(frames), frames.stride(1)) for _, frames in groups])
        arrays = (each.ctypes.data for each in (sources, lengths, images))
        return self._nvjpeg.nvjpegDecodeBatched(self._handle, self._state, *arrays, stream.cuda_stream)

    def _one_by_one(self, files: Sequence[np.ndarray], stream: torch.cuda.Stream) -> tuple[Groups, list[int]]:
        groups: Groups = []
        missed = []
        for place, file in enumerate(files):
            decoded, _ = self.decode([file], stream=stream)
            groups += [([place], frames) for _, frames in decoded]
            missed += [] if decoded else [place]
        return groups, missed


def _library(device: torch.device) -> ctypes.CDLL:
    """nvJPEG, of the package nvidia-nvjpeg or of the system's CUDA, for the CUDA version that torch is built with."""
    import torch

    if device.type != "cuda":
        raise CannotDecode("there is no GPU, or device=cpu")
    name = f"libnvjpeg.so.{(torch.version.cuda or '0').partition('.')[0]}"
    spec = importlib.util.find_spec("nvidia")
    folders = [] if spec is None else [Path(each) for each in spec.submodule_search_locations or ()]
    packaged = [str(path) for folder in folders for path in folder.glob(f"*/lib/{name}")]
    for path in [*packaged, name]:
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        address, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        library.nvjpegCreateEx.argtypes = [number, address, address, ctypes.c_uint, address]
        library.nvjpegJpegStateCreate.argtypes = [address, address]
        library.nvjpegGetImageInfo.argtypes = [address, address, size, address, address, address, address]
        library.nvjpegDecodeBatchedInitialize.argtypes = [address, address, number, number, number]
        library.nvjpegDecodeBatched.argtypes = [address] * 6
        return library
    raise CannotDecode("nvJPEG is not installed: pip install nvidia-nvjpeg")


def _check(status: int, call: str) -> None:
    if status:
        reason = "CUDA out of memory" if status == NO_MEMORY else f"status {status}"
        raise RuntimeError(f"{call}: {reason}")
