"""Validation batches that are read and decoded once, and then kept in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from p2p.batch import Batch
from p2p.data.cache import THREADS
from p2p.data.dataset import PairDataset
from p2p.system.memory import free_memory

SHARE = 1 / 8  # of the free host memory that is taken at most


def can_be_kept(needed: int) -> bool:
    """Whether there is room for so many bytes."""
    free = free_memory()
    return free is not None and needed <= SHARE * free


class KeptBatches:
    """The batches of a data set in the order of `indices`, as a DataLoader makes them; from the second time on at once.

    Args:
        dataset: nothing of it is random.
        indices: of its pairs.
        batch_size: pairs in a batch; the last one may have fewer.
        pin_memory: keep them page-locked, to be copied to a GPU at full speed.
    """

    def __init__(self, dataset: PairDataset, indices: Sequence[int], *, batch_size: int, pin_memory: bool):
        self._dataset, self._pin = dataset, pin_memory
        self._groups = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
        self._batches: list[Batch] | None = None

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[Batch]:
        if self._batches is not None:
            yield from self._batches
            return
        batches = []
        with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:  # decoding leaves Python's lock
            for group in self._groups:
                batch = Batch.collate([*pool.map(self._dataset.__getitem__, group)])
                batches.append(batch.pin_memory() if self._pin else batch)
                if len(batches) == len(self):  # before the last is given: who knows how many there are asks no further
                    self._batches = batches
                yield batches[-1]
