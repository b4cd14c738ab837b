"""Resize with CV-CUDA batches that are on the GPU already, and hand it torch's memory without a wait."""

from __future__ import annotations

from types import ModuleType

import torch


def unavailable() -> str | None:
    """Why CV-CUDA cannot be used, as half a sentence; None if it can."""
    try:
        import cvcuda  # noqa: F401
    except ImportError as error:
        return f"CV-CUDA cannot be used ({error}): pip install cvcuda-cu13"
    return None


def resize(frames_NHWC: torch.Tensor, height: int, width: int, *, stream: torch.cuda.Stream) -> torch.Tensor:
    """Frames of one size -> uint8 (N, height, width, C), by CV-CUDA's imitation of Pillow's bicubic: within 1 in 255.

    Args:
        frames_NHWC: uint8 in [0, 255], 1 or 3 channels, contiguous, on the GPU in the order of `stream`.
        stream: where it happens; CV-CUDA waits for it, and for no other.
    """
    import cvcuda

    count, _, _, channels = frames_NHWC.shape
    with torch.cuda.stream(stream):
        sized_NHWC = frames_NHWC.new_empty(count, height, width, channels)
        cvcuda.pillowresize_into(
            _handed(cvcuda, sized_NHWC, stream),
            _handed(cvcuda, frames_NHWC, stream),
            cvcuda.Format.RGB8 if channels == 3 else cvcuda.Format.U8,
            cvcuda.Interp.CUBIC,
            stream=cvcuda.as_stream(stream),
        )
    return sized_NHWC


class Ordered:
    """A tensor's memory, with the stream in whose order it is ready.

    torch leaves that out of `__cuda_array_interface__`; CV-CUDA then waits for the whole device on every call.
    """

    def __init__(self, tensor: torch.Tensor, stream: torch.cuda.Stream):
        self.tensor = tensor  # as long as CV-CUDA holds this, the memory lives
        # 0 is not allowed there, and 1 is its name of the default stream (version 3 of the interface)
        order = {"version": 3, "stream": stream.cuda_stream or 1}
        self.__cuda_array_interface__ = tensor.__cuda_array_interface__ | order


def _handed(cvcuda: ModuleType, tensor_NHWC: torch.Tensor, stream: torch.cuda.Stream):
    return cvcuda.as_tensor(Ordered(tensor_NHWC, stream), "NHWC")
