"""JPEG files decoded by the JPEG engines of a GPU (A100, H100, H200 and others), a batch in one call of nvJPEG.

nvJPEG is called by ctypes, which lets go of the interpreter's lock: pointers go in, and the pixels of a whole batch lie
in memory of torch. No binding does both that and the interpolation of halved chroma: without it a picture of facades
is 28 dB from libjpeg's, with it no value differs by more than 1 in 255 (benchmarks/README.md).

Workers, which get the codec for its encoder, are spared the import of torch.
"""

from __future__ import annotations

import ctypes
import importlib.util
import weakref
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from p2p.codecs.codec import CodedFiles
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

    def gpu_decoder(self, device: torch.device) -> NvJpegDecoder | None:
        """What decodes on that GPU; None where the CPU has to, and why is printed."""
        try:
            return NvJpegDecoder(device)
        except CannotDecode as reason:
            print(f"codec=nvjpeg cannot be used, because {reason}: the CPU decodes JPEG")
            return None


class CannotDecode(Exception):
    """Why a GPU cannot decode here, as half a sentence."""


class NvJpegDecoder:
    """Decodes batches of files, see `p2p.codecs.codec.BatchDecoder`. For one thread.

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
            if status not in (0, NO_MEMORY):
                reason = "has no JPEG engine" if status == NO_ENGINE else f"refuses nvJPEG (status {status})"
                raise CannotDecode(f"{torch.cuda.get_device_name(device)} {reason}")
            _check(status, "nvjpegCreateEx")
            status = self._nvjpeg.nvjpegJpegStateCreate(self._handle, ctypes.byref(self._state))
            _check(status, "nvjpegJpegStateCreate")
        # Not at the end of the process: CUDA may be gone by then.
        weakref.finalize(self, _destroy, self._nvjpeg, self._handle, self._state).atexit = False

    def decode(self, files: CodedFiles, *, stream: torch.cuda.Stream) -> tuple[Groups, list[int]]:
        """For each size the places of its images and uint8 (N, H, W, 3), see `p2p.codecs.codec.BatchDecoder`.

        Waits for what is under way on `stream`: an H100's engines write without a look at it, and on a stream that was
        busy with kernels this call was seen not to come back. torchcodec waits as well, for the first of these reasons.
        """
        import torch

        stream.synchronize()
        places: dict[tuple[int, int], list[int]] = defaultdict(list)
        for place, (height, width) in enumerate(files.sizes.tolist()):
            places[height, width].append(place)
        with torch.cuda.device(self._device), torch.cuda.stream(stream):
            groups = [
                (same, torch.empty(len(same), *size, 3, dtype=torch.uint8, device=self._device))
                for size, same in places.items()
            ]
            status = self._decode(files, groups, stream)
        if status == NO_MEMORY:
            _check(status, "nvjpegDecodeBatched")
        if status == 0:
            return groups, []
        torch.cuda.synchronize(self._device)  # something may still be written, to memory that goes back now
        if len(files.lengths) == 1:
            return [], [0]
        return self._one_by_one(files, stream)  # one that is damaged spoils its batch

    def _decode(self, files: CodedFiles, groups: Groups, stream: torch.cuda.Stream) -> int:
        """Queue the batch; returns nvJPEG's status."""
        images = np.zeros(len(files.lengths), IMAGE)
        for places, frames in groups:
            images["channel"][places, 0] = frames.data_ptr() + frames.stride(0) * np.arange(len(places))
            images["pitch"][places, 0] = frames.stride(1)
        if self._count != len(images):
            self._count = 0  # until it has succeeded
            status = self._nvjpeg.nvjpegDecodeBatchedInitialize(self._handle, self._state, len(images), 1, RGBI)
            _check(status, "nvjpegDecodeBatchedInitialize")
            self._count = len(images)
        sources, lengths = (np.ascontiguousarray(each, np.uintp) for each in (files.addresses, files.lengths))
        pointers = (each.ctypes.data for each in (sources, lengths, images))
        return self._nvjpeg.nvjpegDecodeBatched(self._handle, self._state, *pointers, stream.cuda_stream)

    def _one_by_one(self, files: CodedFiles, stream: torch.cuda.Stream) -> tuple[Groups, list[int]]:
        groups: Groups = []
        missed = []
        for place in range(len(files.lengths)):
            decoded, _ = self.decode(files.some(slice(place, place + 1)), stream=stream)
            groups += [([place], frames) for _, frames in decoded]
            missed += [] if decoded else [place]
        return groups, missed


def _library(device: torch.device) -> ctypes.CDLL:
    """nvJPEG, of the package nvidia-nvjpeg or of the system's CUDA, for the CUDA version that torch is built with."""
    import torch

    if device.type != "cuda":
        raise CannotDecode("there is no GPU, or device=cpu")
    major = (torch.version.cuda or "0").partition(".")[0]
    name = f"libnvjpeg.so.{major}"
    spec = importlib.util.find_spec("nvidia")
    folders = [] if spec is None else [Path(each) for each in spec.submodule_search_locations or ()]
    packaged = [str(path) for folder in folders for path in folder.glob(f"*/lib/{name}")]
    for path in [*packaged, name]:
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        address, number = ctypes.c_void_p, ctypes.c_int
        library.nvjpegCreateEx.argtypes = [number, address, address, ctypes.c_uint, address]
        library.nvjpegJpegStateCreate.argtypes = [address, address]
        library.nvjpegJpegStateDestroy.argtypes = library.nvjpegDestroy.argtypes = [address]
        library.nvjpegDecodeBatchedInitialize.argtypes = [address, address, number, number, number]
        library.nvjpegDecodeBatched.argtypes = [address] * 6
        return library
    package = "nvidia-nvjpeg" if major == "13" else f"nvidia-nvjpeg-cu{major}"
    raise CannotDecode(f"nvJPEG is not installed: pip install {package}")


def _check(status: int, call: str) -> None:
    if status == 0:
        return
    import torch

    torch.cuda.synchronize()  # where the GPU has failed, this says so, in CUDA's words
    raise RuntimeError(f"{call}: {'CUDA out of memory' if status == NO_MEMORY else f'status {status}'}")


def _destroy(library: ctypes.CDLL, handle: ctypes.c_void_p, state: ctypes.c_void_p) -> None:
    library.nvjpegJpegStateDestroy(state)
    library.nvjpegDestroy(handle)
