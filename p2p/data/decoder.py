"""What decodes training pairs that are not kept: the GPU's JPEG engines, or the CPU."""

from __future__ import annotations

from typing import Literal

import torch
from lightning.fabric.utilities import rank_zero_only

from p2p.codecs.codec import BatchDecoder
from p2p.codecs.nvjpeg import CannotDecode, NvJpegDecoder
from p2p.data.dataset import PairDataset
from p2p.data.images import read_coded
from p2p.data.transforms import cvcuda
from p2p.data.transforms.torchvision import Torchvision
from p2p.system.plural import counted

Decode = Literal["auto", "cpu", "gpu"]

LOOKED_AT = 32  # pairs, evenly spread, by which it is judged what the others are


def gpu_decoder(dataset: PairDataset, *, decode: Decode, device: torch.device) -> BatchDecoder | None:
    """What decodes training pairs that are not kept; None: the CPU. On a GPU, one sentence says which, and why.

    Raises:
        ValueError: "gpu" is asked for where it cannot be.
    """
    if decode == "cpu" or (decode == "auto" and device.type != "cuda"):
        return None
    say = rank_zero_only(print)
    try:
        decoder = NvJpegDecoder(device)
        if (reason := _unsuitable(dataset) or cvcuda.unavailable()) is not None:
            raise CannotDecode(reason)
    except CannotDecode as reason:
        if decode == "gpu":
            raise ValueError(f"data.decode=gpu cannot be used, because {reason}: use data.decode=auto") from None
        say(f"the CPU decodes the training pairs, because {reason}")
        return None
    say("the GPU decodes the training pairs in each epoch, because they are not kept and it has JPEG engines")
    return decoder


def _unsuitable(dataset: PairDataset) -> str | None:
    """Why these pairs are the CPU's, as half a sentence."""
    if getattr(type(dataset.transform), "load", None) is not Torchvision.load:
        return f"{type(dataset.transform).__name__} loads images in its own way"
    if {reading.channels for reading in dataset.readings} != {3}:
        return "a GPU decodes to RGB, and data.input_channels or data.target_channels is not 3"
    if not all(reading.of_pictures for reading in dataset.readings):
        return "a GPU decodes pictures, and data.range or data.labels says that files are something else"
    some = dataset.pairs[:: -(-len(dataset) // LOOKED_AT)]
    fit = sum(read_coded(pair) is not None for pair in some)
    checked = counted(len(some), "pair that was checked", "pairs that were checked")
    return None if 2 * fit >= len(some) else f"a GPU can decode only {fit} of {checked}"
