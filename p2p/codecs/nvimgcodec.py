"""JPEG files decoded on the GPU by nvImageCodec, a batch at a time, so that the CPU's cores are free to encode.

A GPU with a JPEG engine, such as A100 and H100, decodes baseline JPEG in that; CUDA does the rest.
Workers, which get the codec for its encoder, are spared the import of torch.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from p2p.codecs import turbo
from p2p.codecs.fast import Fast

if TYPE_CHECKING:
    import torch


class Decoded(NamedTuple):
    """What became of the files of a batch; each index stands in one of the three.

    Attributes:
        groups: for each size, the indices of its images and uint8 (N, H, W, 3) on the GPU.
        frames: what the CPU decoded, as `p2p.codecs.pillow.decode` gives it.
        failures: what cannot be read, and why.
    """

    groups: list[tuple[list[int], torch.Tensor]]
    frames: dict[int, np.ndarray]
    failures: dict[int, ValueError]


class NvImgCodec(Fast):
    """`Fast`, with its arguments, that also decodes on a GPU."""

    def batches(self, device: torch.device) -> BatchDecoder:
        """What decodes on that GPU, by this codec what cannot be decoded there."""
        return BatchDecoder(cpu=self, device=device)


class BatchDecoder:
    """Decodes batches. The CPU takes what the GPU must not or cannot: see `for_the_gpu`.

    Pixels differ from Pillow's by rounding: by 1 in 255 mostly, more at sharp edges of halved chroma.
    Not for several threads at a time.

    Args:
        cpu: decodes the rest.
        device: the GPU.
        sets: batches whose images may still be read by the GPU while the next one is decoded.

    Raises:
        ValueError: there is no GPU, or nvImageCodec is not installed.
    """

    def __init__(self, *, cpu: Fast, device: torch.device, sets: int = 2):
        import torch

        self._cpu = cpu
        self._device = device
        nvimgcodec = _import_nvimgcodec()
        kinds = nvimgcodec.BackendKind
        with _silent_stderr():
            self._decoder = nvimgcodec.Decoder(
                device_id=device.index or 0,
                backends=[
                    nvimgcodec.Backend(kind) for kind in (kinds.HW_GPU_ONLY, kinds.GPU_ONLY, kinds.HYBRID_CPU_GPU)
                ],
                options=":fancy_upsampling=1",  # of halved chroma, as libjpeg does it
            )
        self._params = nvimgcodec.DecodeParams(apply_exif_orientation=False, color_spec=nvimgcodec.ColorSpec.SRGB)
        self._sets: list[tuple[list, torch.cuda.Event]] = [([], torch.cuda.Event()) for _ in range(sets)]

    def decode(self, files: Sequence[bytes], *, stream: torch.cuda.Stream, channels: int = 3) -> Decoded:
        """The bytes of whole files -> their frames, those on the GPU in the order of `stream`.

        Waits on the host for the batch before the last `sets` to be stacked, which it long is.
        """
        mine = [index for index, data in enumerate(files) if for_the_gpu(data, channels=channels)]
        groups, missed = self._on_gpu([files[index] for index in mine], stream) if mine else ([], [])
        missing = set(range(len(files))) - set(mine) | {mine[place] for place in missed}
        decoded = Decoded([([mine[place] for place in places], frames) for places, frames in groups], {}, {})
        for index in sorted(missing):
            frame_HWC = self._on_cpu(files[index], channels)
            (decoded.failures if isinstance(frame_HWC, ValueError) else decoded.frames)[index] = frame_HWC
        return decoded

    def _on_cpu(self, data: bytes, channels: int) -> np.ndarray | ValueError:
        try:
            return self._cpu.decode(data, channels=channels)
        except ValueError as error:
            return error

    def _on_gpu(
        self, files: list[bytes], stream: torch.cuda.Stream
    ) -> tuple[list[tuple[list[int], torch.Tensor]], list[int]]:
        """Frames by size, and the places of files that could not be decoded."""
        import torch

        images, stacked = self._sets.pop(0)
        # The JPEG engine ignores the order of streams: it would overwrite images that are still being stacked.
        stacked.synchronize()
        reused = images[: len(files)] if len(images) >= len(files) else None
        results = self._decoder.decode(files, images=reused, params=self._params, cuda_stream=stream.cuda_stream)
        places, missed = defaultdict(list), []
        for place, image in enumerate(results):
            if image is None:
                missed.append(place)
            else:
                places[tuple(image.shape)].append(place)
        with torch.cuda.stream(stream):
            # views, by __cuda_array_interface__
            views = [None if image is None else torch.as_tensor(image, device=self._device) for image in results]
            groups = [(same, torch.stack([views[place] for place in same])) for same in places.values()]
            stacked.record(stream)
        whole = not missed and len(results) >= len(images)
        self._sets.append((results if whole else images, stacked))
        return groups, missed


def for_the_gpu(data: bytes, *, channels: int) -> bool:
    """Whether the GPU may give what Pillow would: a JPEG file to be read as RGB, not CMYK and not to be turned."""
    return channels == 3 and turbo.colours(data, channels=channels) is not None


def _import_nvimgcodec() -> ModuleType:
    import torch

    if not torch.cuda.is_available():
        raise ValueError("decoding by nvImageCodec needs an NVIDIA GPU, and torch finds none here: use codec=fast")
    os.environ.setdefault("PYNVIMGCODEC_VERBOSITY", "0")  # of a damaged file, `Decoded.failures` tells
    try:
        with _silent_stderr():
            from nvidia import nvimgcodec
    except ImportError:
        raise ValueError("nvImageCodec is not installed: pip install '.[gpu]', or use codec=fast") from None
    return nvimgcodec


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Drop what C++ prints: the library names each of its own libraries, of formats that nobody asked for."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
