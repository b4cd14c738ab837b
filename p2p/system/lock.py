"""A lock, so that only one process at a time trains in a folder or makes a data set."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.fabric.utilities import rank_zero_only

from p2p.system.atomic import sweep
from p2p.system.folders import check_output

FILE = ".p2p-lock"  # left by a process that is killed; what counts is who holds it


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """Make a run's folder, keep other trainings out of it, and remove the temporary files that killed ones left.

    The lock is of the process (fcntl, not flock, which loader processes would share and keep), and the system releases
    it when the process ends, however it ends. Of the processes of one training the first holds it for all.

    Raises:
        ValueError: another training holds it, and which; or the folder cannot be made or written to.
    """
    if rank_zero_only.rank != 0:
        yield
        return
    check_output(run_dir, key="run_dir")
    path = run_dir / FILE
    try:
        descriptor = _lock(path, wait=False)
    except BlockingIOError:
        holder = path.read_text(errors="replace") or "another process"
        raise ValueError(
            f"{run_dir} is in use, {holder} is training there: wait until it ends, or choose another name="
        ) from None
    try:
        for folder in (run_dir, run_dir / "checkpoints", run_dir / "samples"):
            sweep(folder)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def turn_to_make(folder: Path) -> Iterator[None]:
    """Wait until no other process makes this folder, and let others wait meanwhile."""
    path = folder.with_name(f".{folder.name}{FILE}")
    descriptor = _lock(path, wait=True)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _lock(path: Path, *, wait: bool) -> int:
    """Make a file that says who has it, and lock it; returns its descriptor.

    Raises:
        BlockingIOError: another process has it.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return descriptor  # a file system without locks
            os.close(descriptor)
            raise BlockingIOError from None
        if os.fstat(descriptor).st_nlink:
            os.ftruncate(descriptor, 0)
            try:
                os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
            except OSError as error:
                os.close(descriptor)
                error.filename = str(path.parent)
                raise
            return descriptor
        os.close(descriptor)  # who had it before us has removed it, between our opening and our locking
