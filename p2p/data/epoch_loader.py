"""A loader of training pairs whose epochs can be repeated, and continued in their middle."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, RandomSampler

from p2p.batch import Batch


class EpochLoader(DataLoader):
    """A DataLoader whose order, crops and flips follow from one draw of torch's global generator each epoch.

    So they are the same with any number of loader processes, and in a resumed run. Left alone, processes that
    live from epoch to epoch go on with generators of their own, and draw no seed when an epoch starts.

    Lightning keeps `state_dict` in its checkpoints, and loads it when an epoch was stopped in its middle.
    """

    _stopped: dict[str, int] | None = None

    def __iter__(self) -> Iterator[Batch]:
        """Draw, and start; or go on where the epoch was stopped."""
        stopped, self._stopped = self._stopped, None
        seed = torch.randint(2**62, ()).item() if stopped is None else stopped["seed"]
        self.dataset.epoch_seed.fill_(seed)  # in shared memory if there are loader processes
        if isinstance(self.sampler, RandomSampler):  # on several devices it is a DistributedSampler, by epoch
            self.sampler.generator.manual_seed(seed)
        batches = self.batch_sampler if stopped is None else list(self.batch_sampler)[stopped["batches"] :]
        if self.dataset.batches_on_gpu is not None:
            return self.dataset.batches_on_gpu(batches)
        if stopped is None:
            return super().__iter__()
        options = {name: getattr(self, name) for name in ("num_workers", "collate_fn", "pin_memory", "generator")}
        return iter(DataLoader(self.dataset, batch_sampler=batches, **options))

    def state_dict(self) -> dict[str, int]:
        """The seed of this epoch, and what else its order depends on."""
        return {"seed": self.dataset.epoch_seed.item()} | order_of(
            images=len(self.dataset), batch_size=self.batch_size, processes=getattr(self.sampler, "num_replicas", 1)
        )

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Start the next epoch as that one, without its first `batches`."""
        self._stopped = state


def order_of(*, images: int, batch_size: int, processes: int) -> dict[str, int]:
    """What, beside a seed, the order of an epoch depends on."""
    return {"images": images, "batch_size": batch_size, "processes": processes}
