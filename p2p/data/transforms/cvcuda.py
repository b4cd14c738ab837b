"""Resize, crop and normalize with CV-CUDA, for batches that are on the GPU already."""

from __future__ import annotations

from types import ModuleType
from typing import Literal

import torch

from p2p.data.transforms.torchvision import Torchvision


class CvCuda(Torchvision):
    """`Torchvision` on the CPU, with its arguments, and the same evaluation for whole batches on the GPU.

    The resize is CV-CUDA's imitation of Pillow's bicubic in 8 bits: the result is `Torchvision`'s within 1 in 255.
    Nothing waits for the GPU, and nothing but the given stream is used.
    """

    def unavailable(self) -> str | None:
        """Why CV-CUDA cannot be used, as half a sentence; None if it can."""
        try:
            import cvcuda  # noqa: F401
        except ImportError as error:
            return f"CV-CUDA cannot be used ({error}): pip install cvcuda-cu13"
        return None

    def eval_batch(
        self,
        frames_NHWC: torch.Tensor,
        *,
        stream: torch.cuda.Stream,
        half: Literal["left", "right"] | None = None,
    ) -> torch.Tensor:
        """Frames of one size on the GPU, ready in the order of `stream` -> float32 (N, C, H, W) in [-1, 1], likewise.

        Args:
            frames_NHWC: uint8 in [0, 255], 1 or 3 channels, contiguous.
            stream: where it happens.
            half: which half of an A|B pair to take, of even width.

        Raises:
            ValueError: they are no frames on a GPU, CV-CUDA is not installed, or they are smaller than the crop.
        """
        cvcuda = _import_cvcuda(frames_NHWC)
        assert frames_NHWC.dtype == torch.uint8 and frames_NHWC.shape[3] in (1, 3)
        with torch.cuda.stream(stream):
            if half is not None:
                middle = frames_NHWC.shape[2] // 2
                cut = slice(middle) if half == "left" else slice(middle, None)
                frames_NHWC = frames_NHWC[:, :, cut].contiguous()
            count, *size, channels = frames_NHWC.shape
            height, width = self.sizing.scaled(size[0], size[1], self.sizing.size)
            top = left = 0
            crop = height, width
            if self.sizing.crops:
                self.sizing.check_crop(height, width)
                crop = self.sizing.size, self.sizing.size
                top, left = (height - self.sizing.size) // 2, (width - self.sizing.size) // 2
            images_NCHW = frames_NHWC.new_empty(count, channels, *crop, dtype=torch.float32)
            on = cvcuda.as_stream(stream)
            source = _handed(cvcuda, frames_NHWC, "NHWC", stream)
            if size != [height, width]:
                sized = _handed(cvcuda, frames_NHWC.new_empty(count, height, width, channels), "NHWC", stream)
                format = cvcuda.Format.RGB8 if channels == 3 else cvcuda.Format.U8
                source = cvcuda.pillowresize_into(sized, source, format, cvcuda.Interp.CUBIC, stream=on)
            # One kernel for crop, float, scale and layout. Its own resize, which is not Pillow's, has nothing to do.
            cvcuda.resize_crop_convert_reformat_into(
                _handed(cvcuda, images_NCHW, "NCHW", stream),
                source,
                (width, height),
                cvcuda.Interp.NEAREST,
                (left, top),
                scale=1 / 127.5,
                offset=-1.0,
                stream=on,
            )
        return images_NCHW


class Ordered:
    """A tensor's memory, with the stream in whose order it is ready.

    torch leaves that out of `__cuda_array_interface__`; CV-CUDA then waits for the whole device on every call.
    """

    def __init__(self, tensor: torch.Tensor, stream: torch.cuda.Stream):
        self.tensor = tensor  # as long as CV-CUDA holds this, the memory lives
        # 0 is not allowed there, and 1 is its name of the default stream (version 3 of the interface)
        order = {"version": 3, "stream": stream.cuda_stream or 1}
        self.__cuda_array_interface__ = tensor.__cuda_array_interface__ | order


def _handed(cvcuda: ModuleType, tensor: torch.Tensor, layout: str, stream: torch.cuda.Stream):
    return cvcuda.as_tensor(Ordered(tensor, stream), layout)


def _import_cvcuda(frames_NHWC: torch.Tensor) -> ModuleType:
    if not frames_NHWC.is_cuda:
        raise ValueError("transform=cvcuda needs batches on an NVIDIA GPU: use transform=torchvision on a CPU")
    try:
        import cvcuda
    except ImportError as error:
        raise ValueError(
            f"CV-CUDA cannot be used ({error}): pip install cvcuda-cu13, or transform=torchvision"
        ) from None
    return cvcuda
