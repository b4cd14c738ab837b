"""Pairs as a torch dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import Dataset

from p2p.batch import Batch
from p2p.codecs.pillow import decode
from p2p.data.cache import PairCache
from p2p.data.images import read_input, read_pair
from p2p.data.pairs import Pair
from p2p.data.transforms.transform import Transform, View

Loaded = tuple[torch.Tensor, np.dtype]  # (C, H, W), and what its file had


class PairDataset(Dataset):
    """One `Batch` of a single image for each pair.

    Args:
        pairs: what to load; a pair without a target gives its input, resized and nothing else.
        transform: `train` or `eval` of it is applied.
        augment: random crops and flips, for training.
        input_channels, target_channels: of the frames, see `p2p.codecs.pillow.decode`.

    Attributes:
        pairs, transform: as given.
        channels: those of inputs and targets.
        epoch_seed: crops and flips follow from it and the pair's index, not from which process loads the pair, and
            when; in shared memory where there are loader processes. Below zero, without an `EpochLoader`, they follow
            from torch's global generator.
        cache: of the training pairs as `transform.load` leaves them, to be taken from there; None reads the files.
        batches_on_gpu: makes whole batches, from indices, where pairs are kept or decoded on the GPU.

    Raises:
        ValueError: an image cannot be read or is too small, and which.
    """

    def __init__(
        self, pairs: list[Pair], transform: Transform, *, augment: bool, input_channels: int, target_channels: int
    ):
        self.pairs = pairs
        self.transform = transform
        self._augment = augment
        self.channels = {"input_channels": input_channels, "target_channels": target_channels}
        self.epoch_seed = torch.tensor(-1)
        self.cache: PairCache | None = None
        self.batches_on_gpu: Callable[[Iterable[list[int]]], Iterator[Batch]] | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Batch:
        pair = self.pairs[index]
        if self._augment and pair.target is not None:
            loaded = self.load(index) if self.cache is None else self._cached(index)
            view = self.view(index, *loaded[0][0].shape[1:])
            images = [view.of(image_CHW, dtype) for image_CHW, dtype in loaded]
        else:
            if pair.target is None:
                frames: Sequence[np.ndarray] = (read_input(pair, decode, channels=self.channels["input_channels"]),)
            else:
                frames = read_pair(pair, decode, **self.channels)
            with self._naming(pair):
                images = [self.transform.eval(frame) for frame in frames]
        return Batch([pair.name], *(image[None] for image in images))

    @property
    def names(self) -> list[str]:
        """Of the pairs."""
        return [pair.name for pair in self.pairs]

    def load(self, index: int) -> tuple[Loaded, ...]:
        """Input and target as the transform takes them from the files, before crop and flip."""
        pair = self.pairs[index]
        frames = read_pair(pair, decode, **self.channels)
        with self._naming(pair):
            return tuple((self.transform.load(frame), frame.dtype) for frame in frames)

    def view(self, index: int, height: int, width: int) -> View:
        """The crop and the flip of this epoch, for a loaded pair of this size."""
        seed = self.epoch_seed.item()
        generator = torch.Generator().manual_seed(seed + index) if seed >= 0 else None
        with self._naming(self.pairs[index]):
            return self.transform.draw(height, width, generator)

    def _cached(self, index: int) -> list[Loaded]:
        return [(image_HWC.permute(2, 0, 1), np.dtype(np.uint8)) for image_HWC in self.cache.pair(index)]

    @contextmanager
    def _naming(self, pair: Pair) -> Iterator[None]:
        """Say which file it was."""
        try:
            yield
        except ValueError as error:
            raise ValueError(f"cannot use {pair.input.path}: {error}") from error
