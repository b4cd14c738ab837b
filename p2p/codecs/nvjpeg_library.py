"""nvJPEG by ctypes, which lets go of the interpreter's lock: what its decoder and its encoder share."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

# Of nvjpeg.h.
RGBI = 5  # NVJPEG_OUTPUT_RGBI and NVJPEG_INPUT_RGBI: the three values of a pixel side by side
NO_MEMORY = 5  # NVJPEG_STATUS_ALLOCATOR_FAILURE
COMPONENTS = 4  # NVJPEG_MAX_COMPONENT
IMAGE = np.dtype([("channel", np.uintp, COMPONENTS), ("pitch", np.uintp, COMPONENTS)])  # nvjpegImage_t

_address, _number = ctypes.c_void_p, ctypes.c_int
ARGUMENTS = {
    "nvjpegCreateEx": [_number, _address, _address, ctypes.c_uint, _address],
    "nvjpegDestroy": [_address],
    "nvjpegJpegStateCreate": [_address] * 2,
    "nvjpegJpegStateDestroy": [_address],
    "nvjpegDecodeBatchedInitialize": [_address, _address, _number, _number, _number],
    "nvjpegDecodeBatched": [_address] * 6,
    "nvjpegEncoderStateCreate": [_address] * 3,
    "nvjpegEncoderStateDestroy": [_address],
    "nvjpegEncoderParamsCreate": [_address] * 3,
    "nvjpegEncoderParamsDestroy": [_address],
    "nvjpegEncoderParamsSetQuality": [_address, _number, _address],
    "nvjpegEncoderParamsSetSamplingFactors": [_address, _number, _address],
    "nvjpegEncodeImage": [_address] * 4 + [_number] * 3 + [_address],
    "nvjpegEncodeRetrieveBitstream": [_address] * 5,
}


class CannotUse(Exception):
    """Why a GPU's nvJPEG cannot be used here, as half a sentence."""


def library(device: torch.device) -> ctypes.CDLL:
    """nvJPEG, of the package nvidia-nvjpeg or of the system's CUDA, for the CUDA version that torch is built with."""
    import torch

    if device.type != "cuda":
        raise CannotUse("there is no GPU, or device=cpu")
    major = (torch.version.cuda or "0").partition(".")[0]
    name = f"libnvjpeg.so.{major}"
    spec = importlib.util.find_spec("nvidia")
    folders = [] if spec is None else [Path(each) for each in spec.submodule_search_locations or ()]
    packaged = [str(path) for folder in folders for path in folder.glob(f"*/lib/{name}")]
    for path in [*packaged, name]:
        try:
            found = ctypes.CDLL(path)
        except OSError:
            continue
        for function, arguments in ARGUMENTS.items():
            getattr(found, function).argtypes = arguments
        return found
    package = "nvidia-nvjpeg" if major == "13" else f"nvidia-nvjpeg-cu{major}"
    raise CannotUse(f"nvJPEG is not installed: pip install {package}")


def check(status: int, call: str) -> None:
    """Raise a RuntimeError where a call has failed."""
    if status == 0:
        return
    import torch

    torch.cuda.synchronize()  # where the GPU has failed, this says so, in CUDA's words
    raise RuntimeError(f"{call}: {'CUDA out of memory' if status == NO_MEMORY else f'status {status}'}")
