"""Training pairs that are read, decoded and resized once, and then kept in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Literal, get_args

import numpy as np
import torch

Cache = Literal["auto", "gpu", "ram", "none"]
Loaded = tuple[torch.Tensor, torch.Tensor]

THREADS = 16  # decoding and resizing leave Python's lock
CHUNK = 512  # pairs that share a block of memory, 250 MB at 286x286
SHARE = 0.25  # of the GPU's free memory that "auto" takes at most


def choose(
    cache: Cache, *, device: torch.device, load: Callable[[int], tuple[tuple[torch.Tensor, np.dtype], ...]], count: int
) -> Literal["gpu", "ram", "none"]:
    """What "auto" stands for: "gpu" where there is one and a quarter of its free memory holds all, else "none".

    It goes by the first pair.

    Args:
        cache: what is asked for.
        device: where the networks train.
        load: index -> input and target, (C, H, W), each with the dtype of its file.
        count: pairs.

    Raises:
        ValueError: another name, or a GPU that is not there.
    """
    if cache not in get_args(Cache):
        raise ValueError(f"data.cache={cache} is not known: use one of {', '.join(get_args(Cache))}")
    if cache == "gpu" and device.type != "cuda":
        raise ValueError("data.cache=gpu keeps the pairs on an NVIDIA GPU, and this trains on none: use ram or none")
    if cache != "auto":
        return cache
    if device.type != "cuda":
        return "none"
    first = load(0)
    needed = count * sum(image_CHW.numel() for image_CHW, _ in first)
    fits = needed <= SHARE * torch.cuda.mem_get_info(device)[0]
    return "gpu" if fits and all(image_CHW.dtype == torch.uint8 for image_CHW, _ in first) else "none"


class TooDeep(ValueError):
    """An image of more than 8 bits a channel is to be kept as uint8."""


class PairCache:
    """All training pairs as uint8, before crop and flip.

    Args:
        load: index -> input and target as `Torchvision.load` leaves them, (C, H, W), each with its file's dtype.
        count: pairs.
        device: where to keep them. Loader processes that are forked share what is in host memory.

    Raises:
        TooDeep: a pair has more than 8 bits a channel.
        ValueError: a pair cannot be loaded.
    """

    def __init__(
        self,
        load: Callable[[int], tuple[tuple[torch.Tensor, np.dtype], ...]],
        *,
        count: int,
        device: torch.device | str = "cpu",
    ):
        def load_HWC(index: int) -> list[torch.Tensor]:
            images = [image_CHW for image_CHW, _ in load(index)]
            if any(image_CHW.dtype != torch.uint8 for image_CHW in images):
                raise TooDeep("data.cache keeps 8 bits a channel, and an image has more: use data.cache=none")
            return [image_CHW.permute(1, 2, 0) for image_CHW in images]

        self._pairs: list[Loaded] = []
        with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
            loaded: Iterator[list[torch.Tensor]] = pool.map(load_HWC, range(count))
            while chunk := list(islice(loaded, CHUNK)):
                images = [image_HWC for pair in chunk for image_HWC in pair]
                block = torch.cat([image_HWC.reshape(-1) for image_HWC in images]).to(device)
                parts = block.split([image_HWC.numel() for image_HWC in images])
                views = [part.view(image_HWC.shape) for part, image_HWC in zip(parts, images, strict=True)]
                self._pairs += zip(views[::2], views[1::2], strict=True)

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def bytes(self) -> int:
        """Of all images."""
        return sum(image_HWC.numel() for pair in self._pairs for image_HWC in pair)

    def pair(self, index: int) -> Loaded:
        """Input and target, uint8 (H, W, C) in [0, 255], contiguous; not to be written to."""
        return self._pairs[index]
