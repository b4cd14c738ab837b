"""Faster imports of large libraries."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def lasting() -> Iterator[None]:
    """Keep Python's collector from what is made meanwhile: modules, which last as long as the process.

    It would go through all of them again and again, also when the process ends: of the 1.9 s of `import torch` on two
    cores these are 0.5. Where torch is imported already, as in a sweep's second job, nothing is to be gained, and what
    a job has left is to be collected.
    """
    if "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def beside(function: Callable[..., T], *arguments: object) -> Iterator[Callable[[], T]]:
    """Call a function that leaves Python's lock alone, as reading and hashing do, while the block imports.

    Gives what waits for the function and returns what it returns, or raises what it raises.
    """
    with ThreadPoolExecutor(1, "beside") as pool:
        yield pool.submit(function, *arguments).result
