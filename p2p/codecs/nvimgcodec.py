"""JPEG files decoded on the GPU by nvImageCodec, a batch at a time, so that the CPU's cores are free to encode.

A GPU with a JPEG engine, such as A100, H100 and H200, decodes in that; on others CUDA does the work.
Workers, which get the codec for its encoder, are spared the import of torch.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from p2p.codecs.fast import Fast

if TYPE_CHECKING:
    import torch

Groups = list[tuple[list[int], "torch.Tensor"]]


class NvImgCodec(Fast):
    """`Fast`, with its arguments, whose JPEG files a pipeline decodes on the GPU, where that can be done.

    Both pipelines do, so that their files are the same bytes. Pixels differ from the CPU's by rounding: by 1 in 255
    mostly, more at sharp edges of halved chroma.
    """

    def unavailable(self, device: torch.device) -> str | None:
        """Why the CPU has to decode here, as half a sentence; None if that GPU can."""
        if device.type != "cuda":
            return "there is no GPU, or device=cpu"
        try:
            _import_nvimgcodec()
        except ImportError:
            return "nvImageCodec is not installed: pip install nvidia-nvimgcodec-cu13"
        return None

    def batches(self, device: torch.device) -> BatchDecoder:
        """What decodes on that GPU."""
        return BatchDecoder(device)


class BatchDecoder:
    """Decodes batches of files of which `p2p.codecs.jpeg.gpu_size` says that the GPU may. For one thread.

    Each image by the same engine, whatever else is in its batch: a JPEG engine and CUDA, which share batches by
    default, round differently.

    Args:
        device: the GPU.
        sets: batches whose images may still be read by the GPU while the next one is decoded.
    """

    def __init__(self, device: torch.device, *, sets: int = 2):
        import torch

        self._device = device
        nvimgcodec = _import_nvimgcodec()
        kinds = nvimgcodec.BackendKind
        with _silent_stderr():
            try:
                self._decoder = _decoder(nvimgcodec, device, kinds.HW_GPU_ONLY)
            except RuntimeError:  # this GPU has no JPEG engine
                self._decoder = _decoder(nvimgcodec, device, kinds.HYBRID_CPU_GPU)
        self._params = nvimgcodec.DecodeParams(apply_exif_orientation=False, color_spec=nvimgcodec.ColorSpec.SRGB)
        self._stream_of = nvimgcodec.CodeStream
        # What can be decoded into again, what is being read, and until when.
        self._sets: list[tuple[list, list, torch.cuda.Event]] = [([], [], torch.cuda.Event()) for _ in range(sets)]

    def decode(self, files: Sequence[np.ndarray], *, stream: torch.cuda.Stream) -> tuple[Groups, list[int]]:
        """Whole files, uint8 (bytes,) each -> for each size the places of its images and uint8 (N, H, W, 3).

        The frames are on the GPU in the order of `stream`. Then come the places of what could not be decoded. Waits
        on the host for the JPEG engine, and for the batch before the last `sets` to be stacked, which it long is.
        """
        import torch

        images, _, stacked = self._sets.pop(0)
        # The JPEG engine ignores the order of streams: it would overwrite images that are still being stacked.
        stacked.synchronize()
        reused = images[: len(files)] if len(images) >= len(files) else None
        sources = [self._stream_of(file) for file in files]
        results = self._decoder.decode(sources, images=reused, params=self._params, cuda_stream=stream.cuda_stream)
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
        self._sets.append((results if whole else images, results, stacked))
        return groups, missed


def _decoder(nvimgcodec: ModuleType, device: torch.device, kind: object) -> Any:
    # fancy: of halved chroma, as libjpeg does it
    backends, options = [nvimgcodec.Backend(kind)], ":fancy_upsampling=1"
    return nvimgcodec.Decoder(device_id=device.index or 0, backends=backends, options=options)


def _import_nvimgcodec() -> ModuleType:
    os.environ.setdefault("PYNVIMGCODEC_VERBOSITY", "0")  # of a damaged file, the CPU tells
    with _silent_stderr():
        from nvidia import nvimgcodec
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
