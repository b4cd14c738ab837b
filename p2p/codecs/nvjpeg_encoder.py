"""JPEG files encoded by a GPU's cores, by nvJPEG: no engine of an A100 to H200 encodes, and an image is three calls.

Quality and subsampling mean what they do in `p2p.codecs.fast`; sums are rounded in another way, so that the bytes are
not the same.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import weakref
from typing import TYPE_CHECKING

import numpy as np

from p2p.codecs import nvjpeg_library
from p2p.codecs.nvjpeg_library import IMAGE, NO_MEMORY, RGBI, CannotUse, check
from p2p.codecs.pillow import Subsampling

if TYPE_CHECKING:
    import torch

# Of nvjpeg.h.
DEFAULT = 0  # NVJPEG_BACKEND_DEFAULT
SAMPLINGS = {444: 0, 422: 1, 420: 2}  # NVJPEG_CSS_444 and so on
STATES = 8  # images that are encoded one behind the other, before the host waits


class NvJpegEncoder:
    """Encodes some frames of a batch, see `p2p.codecs.codec.BatchEncoder`. For one thread.

    Args:
        share: of all files, in [0, 1].
        quality, subsampling: see `p2p.codecs.fast.Fast`.

    Raises:
        CannotUse: there is no GPU or no nvJPEG.
    """

    def __init__(self, device: torch.device, *, share: float, quality: int, subsampling: Subsampling):
        import torch

        self._share = share
        self._nvjpeg = nvjpeg_library.library(device)
        self._stream = torch.cuda.Stream(device)
        self._encoded = torch.cuda.Event(blocking=True)
        self._handle, self._parameters = ctypes.c_void_p(), ctypes.c_void_p()
        self._states = [ctypes.c_void_p() for _ in range(STATES)]
        with torch.cuda.stream(self._stream):
            torch.cuda.synchronize()  # makes torch's context, which nvJPEG then uses
            status = self._nvjpeg.nvjpegCreateEx(DEFAULT, None, None, 0, ctypes.byref(self._handle))
            if status not in (0, NO_MEMORY):
                raise CannotUse(f"{torch.cuda.get_device_name(device)} refuses nvJPEG (status {status})")
            check(status, "nvjpegCreateEx")
            self._do("nvjpegEncoderParamsCreate", ctypes.byref(self._parameters))
            for state in self._states:
                self._do("nvjpegEncoderStateCreate", ctypes.byref(state))
            for what, value in {"Quality": quality, "SamplingFactors": SAMPLINGS[subsampling]}.items():
                name = f"nvjpegEncoderParamsSet{what}"
                check(getattr(self._nvjpeg, name)(self._parameters, value, self._stream.cuda_stream), name)
            self._stream.synchronize()
        # Not at the end of the process: CUDA may be gone by then.
        held = self._nvjpeg, self._handle, self._parameters, self._states
        weakref.finalize(self, _destroy, *held).atexit = False

    def takes(self, name: str) -> bool:
        """Whether it is to encode the output of that name."""
        return chosen(name, self._share)

    def encode(self, frames_NHWC: torch.Tensor, places: list[int], files: list[np.ndarray]) -> list[int]:
        """Fill memory with files, and return their lengths, see `p2p.codecs.codec.BatchEncoder`."""
        import torch

        lengths = []
        with torch.cuda.stream(self._stream):  # makes its GPU this thread's, too
            for first in range(0, len(places), STATES):
                some = slice(first, first + STATES)
                lengths += self._encode(frames_NHWC, places[some], files[some])
        return lengths

    def _encode(self, frames_NHWC: torch.Tensor, places: list[int], files: list[np.ndarray]) -> list[int]:
        _, height, width, _ = frames_NHWC.shape
        images = np.zeros(len(places), IMAGE)
        images["channel"][:, 0] = frames_NHWC.data_ptr() + frames_NHWC.stride(0) * np.array(places)
        images["pitch"][:, 0] = frames_NHWC.stride(1)
        addresses = images.ctypes.data + IMAGE.itemsize * np.arange(len(places))
        for state, image in zip(self._states, addresses.tolist(), strict=False):
            self._do("nvjpegEncodeImage", state, self._parameters, image, RGBI, width, height)
        self._encoded.record()
        self._encoded.synchronize()  # asleep, where nvJPEG would keep a core busy
        lengths, length = [], ctypes.c_size_t()
        for state, file in zip(self._states, files, strict=False):
            self._do("nvjpegEncodeRetrieveBitstream", state, None, ctypes.byref(length))
            fits = length.value <= file.nbytes
            if fits:
                self._do("nvjpegEncodeRetrieveBitstream", state, file.ctypes.data, ctypes.byref(length))
            lengths.append(length.value if fits else 0)
        self._stream.synchronize()
        return lengths

    def _do(self, call: str, *arguments) -> None:
        check(getattr(self._nvjpeg, call)(self._handle, *arguments, self._stream.cuda_stream), call)


def chosen(name: str, share: float) -> bool:
    """Whether it is one of so many of all names: whenever and wherever that is asked."""
    digest = hashlib.blake2s(os.fsencode(name), digest_size=4).digest()
    return int.from_bytes(digest, "big") < share * 2**32


def _destroy(
    library: ctypes.CDLL, handle: ctypes.c_void_p, parameters: ctypes.c_void_p, states: list[ctypes.c_void_p]
) -> None:
    for state in states:
        library.nvjpegEncoderStateDestroy(state)
    library.nvjpegEncoderParamsDestroy(parameters)
    library.nvjpegDestroy(handle)
