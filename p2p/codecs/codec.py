"""What a codec is: files in and files out. Another one is one file and one YAML: docs/extending.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:  # a worker that imports torch starts in 3 seconds, one that does not in 0.2
    import torch


class Codec(Protocol):
    """Decodes the files of inputs and encodes those of outputs. It travels to worker processes, so it can be pickled.

    One that also writes 16 bits or floats has `bits`, and one that keeps alpha `keeps_alpha`, and both are more that
    `encode` takes: see `p2p.codecs.pillow.Pillow`.

    Attributes:
        suffix: of the files that it encodes, such as ".png".
    """

    suffix: str

    def decode(self, data: bytes, *, channels: int = 3) -> np.ndarray:
        """The bytes of a file -> (H, W, channels): uint8 in [0, 255], uint16 in [0, 65535] or float32 in [0, 1].

        Raises:
            ValueError: they are no such image, and why, as half a sentence.
            MemoryError: there is not enough.
        """

    def encode(self, frame_HWC: np.ndarray) -> bytes:
        """uint8 (H, W, C) in [0, 255], with channels that `check_channels` lets through -> the bytes of a file."""

    def check_channels(self, channels: int) -> None:
        """Raise a ValueError, with what to do, if the files have no images of so many channels."""


@runtime_checkable
class GpuCodec(Codec, Protocol):
    """A codec whose JPEG files a GPU can decode, a batch at a time, where there is one."""

    def gpu_decoder(self, device: torch.device) -> BatchDecoder | None:
        """What decodes on that GPU; None where the CPU has to. Tells the user which, where it is not clear."""


class CodedFiles(NamedTuple):
    """Whole files in memory, of which `p2p.codecs.jpeg.gpu_size` says that a GPU may decode them; some, by a slice.

    Attributes:
        addresses, lengths: of their bytes, uintp (N,).
        sizes: heights and widths that they have, in pixels, (N, 2).
    """

    addresses: np.ndarray
    lengths: np.ndarray
    sizes: np.ndarray

    def some(self, which: slice) -> CodedFiles:
        """Those in a slice."""
        return CodedFiles(*(each[which] for each in self))


class BatchDecoder(Protocol):
    """Decodes batches of files. For one thread."""

    def decode(
        self, files: CodedFiles, *, stream: torch.cuda.Stream
    ) -> tuple[list[tuple[list[int], torch.Tensor]], list[int]]:
        """For each size the places of its images and uint8 (N, H, W, 3).

        Waits for what is under way on `stream`. The frames are on the GPU in its order. Then come the places of what
        could not be decoded. The files' memory may not be used again before that stream has come so far.

        Raises:
            RuntimeError: the GPU's memory is full.
        """
