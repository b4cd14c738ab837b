"""Pairs as a torch dataset."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import Dataset

from p2p.batch import Batch
from p2p.codecs.pillow import decode
from p2p.data.images import read_input, read_pair
from p2p.data.pairs import Pair
from p2p.data.transforms.torchvision import Torchvision


class PairDataset(Dataset):
    """One `Batch` of a single image for each pair.

    Args:
        pairs: what to load; a pair without a target gives its input, resized and nothing else.
        transform: `train` or `eval` of it is applied.
        augment: random crops and flips, for training.
        input_channels, target_channels: of the frames, see `p2p.codecs.pillow.decode`.

    Raises:
        ValueError: an image cannot be read or is too small, and which.
    """

    def __init__(
        self, pairs: list[Pair], transform: Torchvision, *, augment: bool, input_channels: int, target_channels: int
    ):
        self._pairs = pairs
        self._transform = transform
        self._augment = augment
        self._channels = {"input_channels": input_channels, "target_channels": target_channels}
        # Crops and flips follow from it and the pair's index, not from which process loads the pair, and when.
        # Below zero, without an `EpochLoader`, they follow from torch's global generator.
        self.epoch_seed = torch.tensor(-1).share_memory_()

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Batch:
        pair = self._pairs[index]
        if pair.target is None:
            frames = (read_input(pair, decode, channels=self._channels["input_channels"]),)
        else:
            frames = read_pair(pair, decode, **self._channels)
        try:
            augment = self._augment and pair.target is not None
            images = self._augmented(index, frames) if augment else map(self._transform.eval, frames)
            return Batch([pair.name], *(image[None] for image in images))
        except ValueError as error:
            raise ValueError(f"cannot use {pair.input.path}: {error}") from error

    def _augmented(self, index: int, frames: tuple[np.ndarray, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        seed = self.epoch_seed.item()
        if seed < 0:
            return self._transform.train(*frames)
        with _seeded(seed + index):
            return self._transform.train(*frames)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator, and leave it as it was before."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would start CUDA in a loader process
    try:
        yield
    finally:
        torch.set_rng_state(before)
