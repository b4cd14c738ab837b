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
from p2p.data.reading import RGB, Reading
from p2p.data.transforms.transform import Transform, View
from p2p.levels import normalize

EIGHT_BITS = np.dtype(np.uint8)
Loaded = tuple[torch.Tensor, np.dtype]  # (C, H, W), and what its file had


class PairDataset(Dataset):
    """One `Batch` of a single image for each pair.

    Args:
        pairs: what to load; a pair without a target gives its input, resized and nothing else.
        transform: `train` or `eval` of it is applied.
        augment: random crops and flips, for training.
        input, target: how their files are read.

    Attributes:
        pairs, transform: as given.
        readings: those of inputs and targets.
        epoch_seed: crops and flips follow from it and the pair's index, not from which process loads the pair, and
            when; in shared memory where there are loader processes. Below zero, without an `EpochLoader`, they follow
            from torch's global generator.
        cache: of the training pairs as `transform.load` leaves them, to be taken from there; None reads the files.
        batches_on_gpu: makes whole batches, from indices, where pairs are kept or decoded on the GPU.

    Raises:
        ValueError: an image cannot be read or is too small, and which.
    """

    def __init__(
        self, pairs: list[Pair], transform: Transform, *, augment: bool, input: Reading = RGB, target: Reading = RGB
    ):
        self.pairs = pairs
        self.transform = transform
        self._augment = augment
        self.readings = (input, target)
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
                frames: Sequence[np.ndarray] = (read_input(pair, decode, reading=self.readings[0]),)
            else:
                frames = self._frames(pair)
            with self._naming(pair):
                images = [self._eval(*each) for each in zip(frames, self.readings, strict=False)]
        return Batch([pair.name], *(image[None] for image in images))

    @property
    def names(self) -> list[str]:
        """Of the pairs."""
        return [pair.name for pair in self.pairs]

    def load(self, index: int) -> tuple[Loaded, ...]:
        """Input and target as the transform takes them from the files, before crop and flip."""
        pair = self.pairs[index]
        frames = self._frames(pair)
        with self._naming(pair):
            return tuple(self._load(*each) for each in zip(frames, self.readings, strict=True))

    def view(self, index: int, height: int, width: int) -> View:
        """The crop and the flip of this epoch, for a loaded pair of this size."""
        seed = self.epoch_seed.item()
        generator = torch.Generator().manual_seed(seed + index) if seed >= 0 else None
        with self._naming(self.pairs[index]):
            return self.transform.draw(height, width, generator)

    def _frames(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        return read_pair(pair, decode, input=self.readings[0], target=self.readings[1])

    def _load(self, frame_HWC: np.ndarray, reading: Reading) -> Loaded:
        image_CHW = self.transform.load(frame_HWC)
        return (planes_of(image_CHW, reading), EIGHT_BITS) if reading.labels else (image_CHW, frame_HWC.dtype)

    def _eval(self, frame_HWC: np.ndarray, reading: Reading) -> torch.Tensor:
        image_CHW = self.transform.eval(frame_HWC)
        return normalize(planes_of(image_CHW, reading).float()) if reading.labels else image_CHW

    def _cached(self, index: int) -> list[Loaded]:
        return [(image_HWC.permute(2, 0, 1), EIGHT_BITS) for image_HWC in self.cache.pair(index)]

    @contextmanager
    def _naming(self, pair: Pair) -> Iterator[None]:
        """Say which file it was."""
        try:
            yield
        except ValueError as error:
            raise ValueError(f"cannot use {pair.input.path}: {error}") from error


def planes_of(labels_CHW: torch.Tensor, reading: Reading) -> torch.Tensor:
    """Labels at the network's size, int32 (1, H, W) -> uint8 (C, H, W), 0 or 255."""
    planes_HWC = reading.planes(labels_CHW.permute(1, 2, 0).numpy())
    return torch.from_numpy(planes_HWC).permute(2, 0, 1)
