"""Choose the codec: the GPU's JPEG engines decode if there are few CPU cores, else the CPU decodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2p.codecs.nvjpeg import CannotDecode, NvJpeg, NvJpegDecoder
from p2p.system.cores import available_cores
from p2p.system.plural import counted

if TYPE_CHECKING:
    import torch

MANY = 24  # cores for each GPU, from which on `Fast` should be as fast: by reckoning from 4 to 16, not measured


class Auto(NvJpeg):
    """`NvJpeg` on a GPU that has JPEG engines and fewer than `MANY` cores, else `Fast`.

    On a GPU it says which, and why.
    """

    def gpu_decoder(self, device: torch.device) -> NvJpegDecoder | None:
        """What decodes on that GPU; None where the CPU has to."""
        if device.type != "cuda":
            return None
        import torch

        cores = available_cores() // max(1, torch.cuda.device_count())
        if cores >= MANY:
            print(f"codec: fast, because {cores} cores for each GPU are enough to decode")
            return None
        try:
            decoder = NvJpegDecoder(device)
        except CannotDecode as reason:
            print(f"codec: fast, because {reason}")
            return None
        do = counted(cores, "core does", "cores do")
        print(f"codec: nvjpeg, because the JPEG engines of this GPU can decode, and its {do} the rest")
        return decoder
