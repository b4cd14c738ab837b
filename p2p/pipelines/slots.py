"""Memory that the processes of a pipeline share."""

from __future__ import annotations

import mmap
import os
import tempfile
from types import TracebackType

import numpy as np


class SharedArray:
    """An array in memory that has no name, only a file descriptor, which workers inherit.

    Nothing of it can be left behind: no matter who is killed, the system frees it with the last process that has
    it mapped, and it needs no /dev/shm, which containers hold to 64 MB by default. Pages cost nothing until they
    are written.

    Args:
        shape, dtype: of `array`.
        fd: of an array that another process has made; None makes one, of zeros.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str, *, fd: int | None = None):
        self.shape = shape
        self.dtype = dtype
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.fd = _anonymous(size) if fd is None else fd
        self.array = np.frombuffer(mmap.mmap(self.fd, size), dtype).reshape(shape)
        self._pinned = False

    def pin(self) -> None:
        """Lock its pages, so that a GPU copies to and from them while the host goes on.

        Where the system refuses, over its limit of locked memory say, copies merely wait.
        """
        import torch

        portable = 1  # cudaHostRegisterPortable: for every context
        error = torch.cuda.cudart().cudaHostRegister(self.array.ctypes.data, self.array.nbytes, portable)
        self._pinned = int(error) == 0

    def __enter__(self) -> SharedArray:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Give it back; the mapping itself ends with the last view of the array."""
        if self._pinned:
            import torch

            torch.cuda.cudart().cudaHostUnregister(self.array.ctypes.data)
        del self.array
        os.close(self.fd)


def _anonymous(size: int) -> int:
    """The descriptor of a new file of zeros that is in memory (Linux) or at least in no folder (elsewhere)."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("p2p")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd
