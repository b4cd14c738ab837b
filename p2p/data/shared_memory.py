"""How many loader processes /dev/shm has room for."""

from __future__ import annotations

import os
from pathlib import Path

from lightning.fabric.utilities import rank_zero_only

SHARED_MEMORY = Path("/dev/shm")  # of Linux; torch hands batches from process to process through it
PREFETCH = 2  # batches that a loader process prepares ahead, torch's default
IN_USE = 2  # batches that the training process holds


def workers_that_fit(wanted: int, *, batch_bytes: int, processes: int = 1, folder: Path = SHARED_MEMORY) -> int:
    """As many of the `wanted` loader processes as the shared memory has room for; says so if these are fewer.

    Where it is full a process dies by a bus error in the middle of the training. Containers of Docker have 64 MB.

    Args:
        wanted: loader processes.
        batch_bytes: of a batch.
        processes: that train on this machine, each with so many loader processes.
        folder: where shared memory is mounted; one that is not there has no limit.
    """
    if wanted == 0 or not folder.is_dir():
        return wanted
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize // processes
    fit = min(wanted, max(0, (free // batch_bytes - IN_USE) // PREFETCH))
    if fit < wanted:
        rank_zero_only(print)(
            f"{folder} has {free / 1e6:,.0f} MB free, and {wanted} loader processes need"
            f" {(PREFETCH * wanted + IN_USE) * batch_bytes / 1e6:,.0f} MB: data.workers={fit} is used instead"
            " (docker run --shm-size=8g gives more)"
        )
    return fit
