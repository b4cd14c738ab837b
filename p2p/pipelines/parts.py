"""Split a batch if it does not fit into the GPU's memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from p2p.system.gpu_faults import TooSmall, in_numbers, memory_full, release_memory

T = TypeVar("T")


class Parts:
    """Does work on a whole batch, or, from the first time on that the GPU's memory was full, on part after part of it.

    Args:
        least: images of the smallest part: a smaller one would be filled up, and take as much memory.
        what: is worked on, for messages.
    """

    def __init__(self, *, least: Callable[[], int] = lambda: 1, what: str = "batches"):
        self._least, self._what = least, what
        self._most = self._told = sys.maxsize

    def __call__(self, count: int, work: Callable[[slice], T]) -> list[T]:
        """The results of `work`, which takes some of `count` images and can be done again; in order.

        Raises:
            TooSmall: the GPU's memory does not hold the smallest part.
        """
        done, first = [], 0
        while first < count:
            part = slice(first, min(first + self._most, count))
            try:
                done.append(work(part))
            except Exception as error:
                if (said := memory_full(error)) is None:
                    raise
            else:
                first = part.stop
                if self._most < self._told:
                    self._told = self._most
                    print(f"the GPU's memory holds only {self._what} of {self._most}: continuing with these")
                continue
            release_memory()  # here the exception is gone, and with it what its frames held
            size, least = part.stop - first, self._least()
            if size <= least:
                smaller = "program of a smaller min_batch" if least > 1 else "smaller image_size"
                raise TooSmall(
                    f"the GPU's memory does not hold {self._what} of {size}{in_numbers(said)}: end other programs that"
                    f" use this GPU, or use a {smaller} or device=cpu"
                )
            self._most = max(least, -(-size // 2))
        return done
