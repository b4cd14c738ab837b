"""The codec that is fastest here: files decoded by the GPU's JPEG engines where it has some, else by the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2p.codecs.nvjpeg import CannotDecode, NvJpeg, NvJpegDecoder

if TYPE_CHECKING:
    import torch


class Auto(NvJpeg):
    """`NvJpeg` on a GPU that has JPEG engines, elsewhere `Fast`; on a GPU it says which, and why."""

    def decoder(self, device: torch.device) -> NvJpegDecoder | None:
        """What decodes on that GPU; None where the CPU has to."""
        if device.type != "cuda":
            return None
        try:
            decoder = NvJpegDecoder(device)
        except CannotDecode as reason:
            print(f"codec: fast, because {reason}")
            return None
        print("codec: nvjpeg, because this GPU has JPEG engines, and cores are free to encode")
        return decoder
